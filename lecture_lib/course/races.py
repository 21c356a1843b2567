"""Speedruns: the records over several seeds, and what each ingredient is worth at equal time."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path

import torch

from lecture_lib.checkpoint import save_checkpoint
from lecture_lib.speedrun import (
    INGREDIENTS,
    NETWORK_CLASS,
    Race,
    SpeedrunConfig,
    SpeedrunGPT,
    dev_start,
    play_parts,
    speedrun,
    split_loss,
    strided_loss,
)
from lecture_lib.tokenization import CharTokenizer, split_data
from lecture_lib.training import TrainConfig, estimate_loss

from .corpus import load_corpus
from .device import describe_machine
from .errors import CourseError
from .files import write_text
from .paths import DATA, OUT

MODELS = OUT / "16_speedrun"
RECORD, ABLATIONS = DATA / "recorded" / "speedrun.json", DATA / "recorded" / "ablations.json"
SEEDS = (1337, 1, 2)
RACES = {  # name -> model and training
    "fast": (SpeedrunConfig(), Race()),
    "lowest": (SpeedrunConfig(order=9, noise=0.2), Race()),
    "network": (
        SpeedrunConfig(n_embd=128, n_layer=4, ngrams=6, noise=0.05, without=NETWORK_CLASS),
        Race(max_iters=1400),
    ),
}
ABLATION_STEPS = 60  # of the full recipe; the others get as many as take the same time


def read_splits() -> tuple[CharTokenizer, dict[str, torch.Tensor]]:
    text = load_corpus()
    tokenizer = CharTokenizer(text)
    return tokenizer, split_data(torch.tensor(tokenizer.encode(text)))


def counted_text(n: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The training split's ids, or the first `n` of them, and the parts that they are in."""
    train = read_splits()[1]["train"][:n]
    return train, play_parts(load_corpus())[: len(train)]


def timed_race(
    seed: int, race: Race, config: SpeedrunConfig, text: torch.Tensor, parts: torch.Tensor
) -> tuple[SpeedrunGPT, float]:
    """A model trained on `text` and `parts`, (N,), from random weights; the seconds by the rules' clock."""
    torch.manual_seed(seed)
    began = time.perf_counter()
    model = SpeedrunGPT(config, text, parts)
    speedrun(model, text, parts, race)
    return model, time.perf_counter() - began


def run_race(seed: int, race: Race, config: SpeedrunConfig, out: Path) -> dict:
    """From random weights to the score: trains under the clock, keeps the model as `out`, then looks at val.

    Returns seed, seconds, and the validation loss in consecutive blocks (`val`, the score), by the lecture's
    random crops (`crops`), and in overlapping windows (`strided`).
    """
    tokenizer, splits = read_splits()
    model, seconds = timed_race(seed, race, config, *counted_text())
    crops = TrainConfig(batch_size=64, block_size=config.block_size, eval_iters=200)
    found = {
        "seed": seed,
        "seconds": round(seconds, 3),
        "val": split_loss(model, splits["val"]),
        "crops": estimate_loss(model, {"val": splits["val"]}, crops)["val"],
        "strided": strided_loss(model, splits["val"], config.block_size // 4),
    }
    facts = {"training": asdict(race), "machine": describe_machine(), "date": date.today().isoformat()}
    save_checkpoint(out, model, tokenizer, {**facts, **found})
    return found


def races(
    seeds: list[int], name: str, record: bool = False, path: Path = RECORD, out: Path = MODELS
) -> Iterator[dict]:
    """Run the race `name` of RACES under each seed and yield each result; at the end, `record` them all.

    Raises CourseError for a race that doesn't exist.
    """
    if name not in RACES:
        raise CourseError(f"there is no race {name}; expected one of: {', '.join(RACES)}")
    config, race = RACES[name]
    runs = []
    for seed in seeds:
        runs.append(run_race(seed, race, config, out / f"{name}-{seed}"))
        yield runs[-1]
    if record:
        records = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        write_text(path, json.dumps(records | {name: series_of(name, runs)}, indent=1) + "\n")


def series_of(name: str, runs: list[dict]) -> dict:
    """The runs of a race with what one needs to know to repeat them."""
    config, race = RACES[name]
    return {
        "command": f"lecture speedrun {' '.join(str(run['seed']) for run in runs)} --race {name} --record",
        "machine": describe_machine(),
        "threads": torch.get_num_threads(),
        "date": date.today().isoformat(),
        "model": asdict(config),
        "training": asdict(race),
        "runs": runs,
    }


# ---------------------------------------------------------------- ablations


def variants() -> dict[str, tuple[SpeedrunConfig, Race]]:
    """The fast race's recipe, and changes of one thing: name -> model and training."""
    left_out = {f"without {name}": (SpeedrunConfig(without=(name,)), Race()) for name in INGREDIENTS}
    return {"the recipe": RACES["fast"], **left_out} | {
        "without noise": (SpeedrunConfig(noise=0.0), Race()),
        "without a falling rate": (SpeedrunConfig(), Race(falling=0.0)),
        "with a batch of 32": (SpeedrunConfig(), Race(batch_size=32)),
        "with dropout 0.1": (SpeedrunConfig(dropout=0.1), Race()),
        "with Adam alone": (SpeedrunConfig(), Race(muon_rate=0.0)),
        "twice as wide": (SpeedrunConfig(n_embd=128), Race()),
        "without any counts": (SpeedrunConfig(without=INGREDIENTS[:2]), Race()),
        "without any counts, with Adam alone": (SpeedrunConfig(without=INGREDIENTS[:2]), Race(muon_rate=0.0)),
    }


def seconds_per_step(config: SpeedrunConfig, race: Race, text: torch.Tensor, parts: torch.Tensor) -> float:
    """Processor time of a training step, over six of them after two that aren't counted."""
    model = SpeedrunGPT(config, text, parts)
    speedrun(model, text, parts, replace(race, max_iters=2))
    began = time.process_time()
    speedrun(model, text, parts, replace(race, max_iters=6))
    return (time.process_time() - began) / 6


def ablate(seeds: tuple[int, ...] = SEEDS, path: Path = ABLATIONS) -> Iterator[dict]:
    """Train every variant under every seed for equal processor time; yields each run, and writes it at once.

    What is in the file already isn't run again, so an interrupted series goes on where it stopped.
    """
    train = read_splits()[1]["train"]
    cut = dev_start(load_corpus(), len(train))
    (inner, parts), dev = counted_text(cut), train[cut:]
    if path.exists():
        series = json.loads(path.read_text(encoding="utf-8"))
    else:
        seconds = ABLATION_STEPS * seconds_per_step(*variants()["the recipe"], inner, parts)
        series = {"command": "lecture speedrun --ablate", "machine": describe_machine(), "seconds": seconds}
        series |= {"date": date.today().isoformat(), "runs": []}
    done = {(run["variant"], run["seed"]) for run in series["runs"]}
    for seed in seeds:
        for variant, (config, race) in variants().items():
            if (variant, seed) in done:
                continue
            steps = round(series["seconds"] / seconds_per_step(config, race, inner, parts))
            model, _ = timed_race(seed, replace(race, max_iters=steps), config, inner, parts)
            run = {"variant": variant, "seed": seed, "steps": steps, "dev": split_loss(model, dev)}
            series["runs"].append(run)
            write_text(path, json.dumps(series, indent=1) + "\n")
            yield run
