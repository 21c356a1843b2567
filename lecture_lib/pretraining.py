"""What pretraining buys: draft, to be written by `lecture promote`."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch

from lecture_lib.base.corpus import load_corpus, load_other_plays
from lecture_lib.batches import get_batch
from lecture_lib.checkpoint import checkpoint_kind
from lecture_lib.generation import AutoregressiveModel
from lecture_lib.held_out import play_parts
from lecture_lib.speedrun import SpeedrunConfig, SpeedrunGPT, SpeedrunTraining
from lecture_lib.tokenization import CharTokenizer, load_splits


def encode_plays(
    plays: dict[str, str], tokenizer: CharTokenizer, first_part: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The ids of plays, one after another, and the part that each is in, (N,) both.

    Parts are numbered from `first_part`, two to a play, its first third and the rest, as in `play_parts`.
    """
    ids, parts = [], []
    for i, speeches in enumerate(plays.values()):
        play = torch.tensor(tokenizer.encode(speeches + "\n\n"))
        late = torch.arange(len(play)) >= len(play) // 3
        ids.append(play)
        parts.append(first_part + 2 * i + late)
    return torch.cat(ids), torch.cat(parts)


def batch_losses(model: AutoregressiveModel, ids: torch.Tensor, batch_size: int) -> Iterator[torch.Tensor]:
    """The loss of a random batch of a text, (N,), again and again."""
    while True:
        yield model(*get_batch({"text": ids}, "text", batch_size, model.block_size))[1]


def watched(losses: Iterator[torch.Tensor], every: int, look: Callable[[], object]) -> Iterator[torch.Tensor]:
    """The same losses; before each `every`-th, the first included, `look` is called."""
    for step, loss in enumerate(losses):
        if step % every == 0:
            look()
        yield loss


def gentler(training: SpeedrunTraining, steps: int, share: float) -> SpeedrunTraining:
    """The speedrun's recipe with that many steps, and that share of each of its learning rates."""
    rates = ("adam_rate", "counts_rate", "muon_rate")
    return replace(training, max_iters=steps, **{rate: share * getattr(training, rate) for rate in rates})


class PretrainedSpeedrunGPT(SpeedrunGPT):
    """A SpeedrunGPT that counts the other plays, too."""


def every_text() -> tuple[torch.Tensor, torch.Tensor]:
    """The training split and, after it, the other plays: ids and parts, (N,) both."""
    tokenizer, splits = load_splits()
    parts = play_parts(load_corpus())
    more, more_parts = encode_plays(load_other_plays(), tokenizer, int(parts.max()) + 1)
    n = len(splits["train"])
    return torch.cat([splits["train"], more]), torch.cat([parts[:n], more_parts])


@checkpoint_kind("PretrainedSpeedrunGPT", SpeedrunConfig)
def recounted_pretrained(config: SpeedrunConfig) -> PretrainedSpeedrunGPT:
    """The model to load a checkpoint's weights into; its counts, of all plays, are made again."""
    return PretrainedSpeedrunGPT(config, every_text()[0])
