"""Speedruns: the records over several seeds, and what each ingredient is worth at equal time."""

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from statistics import median

import torch

from lecture_lib.base.corpus import load_corpus
from lecture_lib.base.errors import CourseError
from lecture_lib.base.paths import DATA, OUT
from lecture_lib.base.records import read_json, stamp, write_json
from lecture_lib.checkpoint import save_checkpoint
from lecture_lib.evaluation import split_loss, strided_loss
from lecture_lib.held_out import dev_start, play_parts
from lecture_lib.pretraining import PretrainedSpeedrunGPT, every_text, gentler
from lecture_lib.speedrun import (
    INGREDIENTS,
    NETWORK_CLASS,
    SpeedrunConfig,
    SpeedrunGPT,
    SpeedrunTraining,
    speedrun,
)
from lecture_lib.tokenization import load_splits
from lecture_lib.training import TrainConfig, estimate_loss

MODELS = OUT / "16c_speedrun"
RECORD, ABLATIONS = DATA / "recorded" / "speedrun.json", DATA / "recorded" / "ablations.json"
PRETRAINING = DATA / "recorded" / "pretraining.json"
SEEDS = (1337, 1, 2)
Race = tuple[SpeedrunConfig, SpeedrunTraining]  # what is trained, and how
RACES: dict[str, Race] = {
    "fast": (SpeedrunConfig(), SpeedrunTraining()),
    "lowest": (SpeedrunConfig(order=9, noise=0.2), SpeedrunTraining()),
    "network": (
        SpeedrunConfig(n_embd=128, n_layer=4, ngrams=6, noise=0.05, **NETWORK_CLASS),
        SpeedrunTraining(max_iters=1400),
    ),
    "pretrained": (SpeedrunConfig(order=6), SpeedrunTraining(max_iters=1000)),
}
MORE_DATA = {"pretrained": gentler(SpeedrunTraining(), 200, 0.5)}  # how these are fine-tuned afterwards
ABLATION_STEPS = {"fast": 60, "network": 120}  # of the recipe; its variants get as many as take the same time


def counted_text(n: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The training split's ids, or the first `n` of them, and the parts that they are in."""
    train = load_splits()[1]["train"][:n]
    return train, play_parts(load_corpus())[: len(train)]


def timed_race(seed: int, race: Race, text: torch.Tensor, parts: torch.Tensor) -> tuple[SpeedrunGPT, float]:
    """A model trained on `text` and `parts`, (N,), from random weights; the seconds by the rules' clock."""
    config, training = race
    torch.manual_seed(seed)
    began = time.perf_counter()
    model = SpeedrunGPT(config, text, parts)
    speedrun(model, text, parts, training)
    return model, time.perf_counter() - began


def run_race(seed: int, name: str, out: Path) -> dict:
    """The race `name`, from random weights: train under the clock, keep the model as `out`, then look at val.

    Returns seed, seconds, and the validation loss in consecutive blocks (`val`, the score), by the lecture's
    random crops (`crops`), and in overlapping windows (`strided`).
    """
    config, training = RACES[name]
    tokenizer, splits = load_splits()
    if name in MORE_DATA:
        model, seconds = pretrained_race(seed, RACES[name], MORE_DATA[name])
    else:
        model, seconds = timed_race(seed, RACES[name], *counted_text())
    crops = TrainConfig(batch_size=64, block_size=config.block_size, eval_iters=200)
    found = {
        "seed": seed,
        "seconds": round(seconds, 3),
        "val": split_loss(model, splits["val"]),
        "crops": estimate_loss(model, {"val": splits["val"]}, crops)["val"],
        "strided": strided_loss(model, splits["val"], config.block_size // 4),
    }
    facts = {"training": asdict(training), **stamp(f"lecture speedrun {seed} --race {name}")}
    save_checkpoint(out, model, tokenizer, {**facts, **found})
    return found


def pretrained_race(seed: int, race: Race, tuning: SpeedrunTraining) -> tuple[SpeedrunGPT, float]:
    """A model trained on all plays, then fine-tuned on the training split; the seconds of the clock."""
    config, training = race
    everything, tiny = every_text(), counted_text()
    torch.manual_seed(seed)
    began = time.perf_counter()
    model = PretrainedSpeedrunGPT(config, *everything)
    speedrun(model, *everything, training)
    speedrun(model, *tiny, tuning)
    return model, time.perf_counter() - began


def record_of(name: str) -> Path:
    """The file that the race's series is stored in."""
    return PRETRAINING if name in MORE_DATA else RECORD


def races(
    seeds: list[int], name: str, record: bool = False, path: Path | None = None, out: Path = MODELS
) -> Iterator[dict]:
    """Run the race `name` of RACES under each seed and yield each result; at the end, `record` them all.

    The file is `path`, by default the race's own. Raises CourseError for a race that doesn't exist.
    """
    if name not in RACES:
        raise CourseError(f"there is no race {name}; expected one of: {', '.join(RACES)}")
    runs = []
    for seed in seeds:
        runs.append(run_race(seed, name, out / f"{name}-{seed}"))
        yield runs[-1]
    if record:
        path = path or record_of(name)
        write_json(path, read_json(path) | {name: series_of(name, runs)})


def series_of(name: str, runs: list[dict]) -> dict:
    """The runs of a race with what one needs to know to repeat them."""
    config, training = RACES[name]
    return {
        **stamp(f"lecture speedrun {' '.join(str(run['seed']) for run in runs)} --race {name} --record"),
        "threads": torch.get_num_threads(),
        "model": asdict(config),
        "training": asdict(training),
        **({"fine-tuning": asdict(MORE_DATA[name])} if name in MORE_DATA else {}),
        "runs": runs,
    }


# ---------------------------------------------------------------- ablations


def variants(name: str) -> dict[str, Race]:
    """The race's recipe, and the same with one thing changed, by what the change is called."""
    config, training = RACES[name]

    def other_model(**change) -> Race:
        return replace(config, **change), training

    def other_training(**change) -> Race:
        return config, replace(training, **change)

    found = {"the recipe": RACES[name]}
    for ingredient, field in INGREDIENTS.items():
        if getattr(config, field):
            found[f"without {ingredient}"] = other_model(**{field: False})
    found |= {
        "without noise": other_model(noise=0.0),
        "without a falling rate": other_training(falling=0.0),
        "with a batch of 32": other_training(batch_size=32),
        "with dropout 0.1": other_model(dropout=0.1),
        "with Adam alone": other_training(muon_rate=0.0),
        "twice as wide": other_model(n_embd=2 * config.n_embd),
    }
    if config.ngrams > 1:
        found["without n-grams"], found["n-grams up to 3"] = other_model(ngrams=1), other_model(ngrams=3)
    if config.count_text:
        found["without any counts"] = other_model(count_text=False, count_page=False)
    return found


def processor_seconds_per_step(race: Race, text: torch.Tensor, parts: torch.Tensor) -> float:
    """Processor time of a training step, over six of them after two that aren't counted."""
    config, training = race
    model = SpeedrunGPT(config, text, parts)
    speedrun(model, text, parts, replace(training, max_iters=2))
    began = time.process_time()
    speedrun(model, text, parts, replace(training, max_iters=6))
    return (time.process_time() - began) / 6


def equal_time(name: str, text: torch.Tensor, parts: torch.Tensor) -> tuple[float, dict[str, int]]:
    """Processor seconds that the recipe's steps take, and each variant's number of steps in that time.

    The variants are timed in turns, three times, so a machine that slows down slows all of them.
    """
    table = variants(name)
    times = {variant: [] for variant in table}
    for _ in range(3):
        for variant, race in table.items():
            times[variant].append(processor_seconds_per_step(race, text, parts))
    seconds = ABLATION_STEPS[name] * median(times["the recipe"])
    return seconds, {variant: round(seconds / median(found)) for variant, found in times.items()}


def new_series(name: str, text: torch.Tensor, parts: torch.Tensor) -> dict:
    """Ablations of a race of which none has been run: what was measured before, and where."""
    seconds, steps = equal_time(name, text, parts)
    return {
        **stamp(f"lecture speedrun --ablate --race {name}"),
        "seconds": seconds,
        "steps": steps,
        "runs": [],
    }


def check_ablated(name: str) -> None:
    """CourseError unless the race `name` is one that is taken apart."""
    if name not in ABLATION_STEPS:
        raise CourseError(f"race {name} has no ablations; expected one of: {', '.join(ABLATION_STEPS)}")


def split_for_settings() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What variants learn from, the ids of `inner` and their parts, and `dev`, which judges them."""
    train = load_splits()[1]["train"]
    cut = dev_start(load_corpus(), len(train))
    return *counted_text(cut), train[cut:]


def ablate(name: str = "fast", seeds: tuple[int, ...] = SEEDS, path: Path = ABLATIONS) -> Iterator[dict]:
    """Train each variant of a race under each seed for equal processor time; yields and writes each at once.

    What is in the file already isn't run again, so an interrupted series goes on where it stopped.
    Raises CourseError for a race that has no ablations.
    """
    check_ablated(name)
    inner, parts, dev = split_for_settings()
    every = read_json(path)
    series = every[name] = every.get(name) or new_series(name, inner, parts)
    done = {(run["variant"], run["seed"]) for run in series["runs"]}
    for seed, (variant, (config, training)) in product(seeds, variants(name).items()):
        if (variant, seed) in done:
            continue
        equally_long = replace(training, max_iters=series["steps"][variant])
        model, _ = timed_race(seed, (config, equally_long), inner, parts)
        series["runs"].append({"variant": variant, "seed": seed, "dev": split_loss(model, dev)})
        write_json(path, every)
        yield series["runs"][-1]


def at_full_length(variant: str, name: str, seed: int, path: Path = ABLATIONS) -> dict:
    """Train one variant of a race for all of the race's steps; returns its run, and adds it to the file.

    Equal steps, not equal time, so a machine that is busy with other things changes nothing.
    Raises CourseError for a race that has no ablations, and for an unknown variant.
    """
    check_ablated(name)
    known = variants(name)
    if variant not in known:
        raise CourseError(f"no variant {variant!r} of {name}; expected one of: {', '.join(known)}")
    config, training = known[variant]
    inner, parts, dev = split_for_settings()
    model, _ = timed_race(seed, (config, training), inner, parts)
    run = {"variant": variant, "seed": seed, "steps": training.max_iters, "dev": split_loss(model, dev)}
    run |= stamp(f'lecture speedrun {seed} --race {name} --variant "{variant}"')
    every = read_json(path)
    every[name].setdefault("full length", []).append(run)
    write_json(path, every)
    return run
