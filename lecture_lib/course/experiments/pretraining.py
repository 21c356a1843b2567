"""What pretraining on the other plays buys, with two models, at equal steps."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import torch

from lecture_lib.base.corpus import load_corpus, load_other_plays, play_spans
from lecture_lib.base.errors import CourseError
from lecture_lib.base.records import read_json, stamp, write_json
from lecture_lib.evaluation import split_loss
from lecture_lib.fine_tuning import optimise
from lecture_lib.nanogpt import NanoGPT, NanoGPTConfig
from lecture_lib.pretraining import batch_losses, encode_plays, gentler, watched
from lecture_lib.speedrun import SpeedrunConfig, SpeedrunGPT, SpeedrunTraining, speedrun
from lecture_lib.tokenization import load_splits
from lecture_lib.training import History, TrainConfig, estimate_loss

from .races import PRETRAINING, SEEDS, counted_text

Text = tuple[torch.Tensor, torch.Tensor]  # ids and the parts that they are in, (N,) both

SMALL = NanoGPTConfig(block_size=32, n_embd=64, n_head=4, n_layer=4)
BATCH_SIZE = 16
LOOK_EVERY = 500  # steps between two estimates, for the curves
CROPS = TrainConfig(batch_size=BATCH_SIZE, block_size=SMALL.block_size, eval_iters=100)
COUNTING = SpeedrunConfig(order=6)


@dataclass(frozen=True)
class Stage:
    """Some steps on one text.

    `rate` is AdamW's highest for the small GPT, a share of the recipe's rates for the speedrun's model.
    """

    text: str  # of `all_texts`
    steps: int
    rate: float


Arm = tuple[Stage, ...]  # one stage after the other, with the same model


def arms(first: Stage, then: Stage) -> dict[str, Arm]:
    """Runs of equally many steps in all, by name; `first` and `then` are those of the fine-tuned one."""
    steps = first.steps + then.steps
    return {
        "from scratch": (Stage("tiny", steps, first.rate),),
        "pretrained only": (Stage("plays", steps, first.rate),),
        "fine-tuned": (first, then),
    }


FIRST, THEN = Stage("plays", 300, 1.0), Stage("tiny", 100, 0.5)  # of the speedrun's model
ARMS = {
    "small": {
        **arms(Stage("plays", 3000, 4e-3), Stage("tiny", 1000, 1e-3)),
        "two stages on tiny": (Stage("tiny", 3000, 4e-3), Stage("tiny", 1000, 1e-3)),
        "all at once": (Stage("both", 4000, 4e-3),),
        "from scratch, fewer steps": (Stage("tiny", 1000, 4e-3),),
        "from scratch, longer": (Stage("tiny", 12_000, 4e-3),),
        "fine-tuned, longer": (Stage("plays", 9000, 4e-3), Stage("tiny", 3000, 1e-3)),
    },
    "speedrun": {
        **arms(FIRST, THEN),
        "all at once": (Stage("both", FIRST.steps + THEN.steps, FIRST.rate),),
        **{f"plays/{n}, fine-tuned": (replace(FIRST, text=f"plays/{n}"), THEN) for n in (2, 4, 8)},
    },
}


def all_texts() -> dict[str, Text]:
    """Tiny Shakespeare's training split, the other plays, fewer of them, and both together."""
    tokenizer, plays = load_splits()[0], list(load_other_plays().items())
    first = len(play_spans(load_corpus()))  # after the corpus's own
    texts = {"tiny": counted_text()}
    for every in (1, 2, 4, 8):
        name = f"plays/{every}" if every > 1 else "plays"
        texts[name] = encode_plays(dict(plays[::every]), tokenizer, first)
    return texts | {"both": joined([texts["tiny"], texts["plays"]])}


def joined(texts: list[Text]) -> Text:
    """Texts one after another."""
    ids, parts = zip(*texts, strict=True)
    return torch.cat(ids), torch.cat(parts)


def run_small(seed: int, arm: Arm, texts: dict[str, Text], val: torch.Tensor) -> dict:
    """Train chapter 13's network, at the lecture's small size: its losses, in the end and on the way."""
    torch.manual_seed(seed)
    began, model, history, done = time.process_time(), NanoGPT(SMALL), History(), 0
    splits = {"train": texts["tiny"][0], "val": val}

    def look(step: int) -> None:
        history.add(step, estimate_loss(model, splits, CROPS))

    for stage in arm:
        losses = batch_losses(model, texts[stage.text][0], BATCH_SIZE)
        optimise(model, watched(losses, look, LOOK_EVERY, done), stage.steps, stage.rate)
        done += stage.steps
    look(done)
    seconds = time.process_time() - began
    return {"val": split_loss(model, val), "processor seconds": seconds, "curve": asdict(history)}


def run_speedrun(seed: int, arm: Arm, texts: dict[str, Text], val: torch.Tensor) -> dict:
    """Train the speedrun's model, which counts every text of the arm: its loss."""
    torch.manual_seed(seed)
    began = time.process_time()
    counted = joined([texts[name] for name in dict.fromkeys(stage.text for stage in arm)])
    model = SpeedrunGPT(COUNTING, *counted)
    for stage in arm:
        speedrun(model, *texts[stage.text], gentler(SpeedrunTraining(), stage.steps, stage.rate))
    seconds = time.process_time() - began
    return {"val": split_loss(model, val), "processor seconds": seconds}


RUN = {"small": run_small, "speedrun": run_speedrun}


def pretrain(model: str, path: Path = PRETRAINING) -> Iterator[dict]:
    """Train every arm of a model; yields each result, and writes it at once.

    What is in the file already isn't run again, so an interrupted series goes on where it stopped.
    Raises CourseError for an unknown model.
    """
    if model not in RUN:
        raise CourseError(f"no model {model!r}; expected one of: {', '.join(RUN)}")
    texts, val = all_texts(), load_splits()[1]["val"]
    every = read_json(path)
    runs = every.get(model, {}).get("runs", [])
    write_json(path, every | {model: new_series(model, texts) | {"runs": runs}})
    done = {(run["arm"], run["seed"]) for run in runs}
    for seed, name in product(SEEDS, ARMS[model]):
        if (name, seed) in done:
            continue
        found = {"arm": name, "seed": seed, **RUN[model](seed, ARMS[model][name], texts, val)}
        every = read_json(path)  # again: another model's series may have gone on meanwhile
        every[model]["runs"].append(found)
        write_json(path, every)
        yield found


def new_series(model: str, texts: dict[str, Text]) -> dict:
    """A model's series before its runs: how its arms are trained, where, on how many characters."""
    return {
        **stamp(f"lecture pretrain {model}"),
        "model": asdict(SMALL if model == "small" else COUNTING),
        "arms": {name: [asdict(stage) for stage in arm] for name, arm in ARMS[model].items()},
        "characters": {name: len(ids) for name, (ids, _) in texts.items()},
    }
