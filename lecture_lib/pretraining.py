"""What pretraining buys.

From notebooks/18_pretraining.ipynb.
Video 1:56:20.
Written by `lecture promote`: edit the notebook, not this file.

Karp and Rabin 1987: https://doi.org/10.1147/rd.312.0249
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch

from lecture_lib.base.corpus import load_corpus, load_other_plays, play_spans
from lecture_lib.batches import get_batch
from lecture_lib.checkpoint import checkpoint_kind
from lecture_lib.generation import AutoregressiveModel
from lecture_lib.held_out import parts_of_play, play_parts
from lecture_lib.speedrun import SpeedrunConfig, SpeedrunGPT, SpeedrunTraining
from lecture_lib.tokenization import CharTokenizer, load_splits

__all__ = [
    "HASH_BASE",
    "PretrainedSpeedrunGPT",
    "batch_losses",
    "common_places",
    "encode_plays",
    "every_text",
    "fingerprints",
    "gentler",
    "longest_common_passage",
    "recounted_pretrained",
    "watched",
]


def encode_plays(
    plays: dict[str, str], tokenizer: CharTokenizer, first: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The ids of plays, one after another, and the part that each is in, (N,) both.

    The plays are numbered from `first`, and their parts as in `play_parts`.
    """
    ids = [torch.tensor(tokenizer.encode(speeches + "\n\n")) for speeches in plays.values()]
    parts = [parts_of_play(len(play), i) for i, play in enumerate(ids, start=first)]
    return torch.cat(ids), torch.cat(parts)


HASH_BASE = 6_364_136_223_846_793_005  # odd, so that it has an inverse modulo 2^64


def fingerprints(text: str, n: int) -> np.ndarray:
    """A number for each passage of n characters of an ASCII text, (N - n + 1,); equal ones have the same.

    After Karp and Rabin 1987, but modulo 2^64, not a random prime.
    """
    codes = np.frombuffer(text.encode("ascii"), dtype=np.uint8).astype(np.uint64)  # (N,)
    powers = np.cumprod(np.full(len(codes), HASH_BASE, dtype=np.uint64))  # (N,)
    inverses = np.cumprod(np.full(len(codes), pow(HASH_BASE, -1, 2**64), dtype=np.uint64))  # (N,)
    sums = np.cumsum(np.append(np.uint64(0), codes * powers))  # (N + 1,)
    shifts = np.append(np.uint64(1), inverses)[: len(codes) - n + 1]  # (N - n + 1,)
    return (sums[n:] - sums[: len(codes) - n + 1]) * shifts


def common_places(a: str, b: str, n: int) -> np.ndarray:
    """Where in `a` the passages of n characters begin that also occur in `b`."""
    return np.flatnonzero(np.isin(fingerprints(a, n), fingerprints(b, n)))


def longest_common_passage(a: str, b: str) -> str:
    """The first of the longest passages of `a` that stand in `b`, too; both are ASCII."""
    place, works, fails = 0, 0, min(len(a), len(b)) + 1  # a place, and two lengths
    while fails - works > 1:
        n = min(2 * works + 1, (works + fails) // 2)
        places = common_places(a, b, n)
        if len(places):
            place, works = places[0], n
        else:
            fails = n
    return a[place : place + works]


def batch_losses(model: AutoregressiveModel, ids: torch.Tensor, batch_size: int) -> Iterator[torch.Tensor]:
    """The loss of a random batch of a text, (N,), again and again."""
    while True:
        yield model(*get_batch({"text": ids}, "text", batch_size, model.block_size))[1]


def watched(
    losses: Iterator[torch.Tensor], look: Callable[[int], object], every: int, first: int = 0
) -> Iterator[torch.Tensor]:
    """The same losses, those of steps `first` on; `look(step)` before each step that `every` divides."""
    for step, loss in enumerate(losses, start=first):
        if step % every == 0:
            look(step)
        yield loss


def gentler(training: SpeedrunTraining, steps: int, share: float) -> SpeedrunTraining:
    """The speedrun's recipe with that many steps, and that share of each of its learning rates."""
    rates = ("adam_rate", "counts_rate", "muon_rate")
    return replace(training, max_iters=steps, **{rate: share * getattr(training, rate) for rate in rates})


class PretrainedSpeedrunGPT(SpeedrunGPT):
    """A SpeedrunGPT whose counts are of `every_text`."""


def every_text() -> tuple[torch.Tensor, torch.Tensor]:
    """The training split and, after it, the other plays: ids and parts, (N,) both."""
    text, (tokenizer, splits) = load_corpus(), load_splits()
    more, more_parts = encode_plays(load_other_plays(), tokenizer, first=len(play_spans(text)))
    parts = play_parts(text)[: len(splits["train"])]
    return torch.cat([splits["train"], more]), torch.cat([parts, more_parts])


@checkpoint_kind("PretrainedSpeedrunGPT", SpeedrunConfig)
def recounted_pretrained(config: SpeedrunConfig) -> PretrainedSpeedrunGPT:
    """The model to load a checkpoint's weights into; its counts, of all plays, are made again."""
    return PretrainedSpeedrunGPT(config, every_text()[0])
