"""The benchmark: what a token costs in the course's models, side by side in one run, ratios first.

Every comparison takes its measurements in turns, so that a machine which slows down slows all of them. The
results go to `data/recorded/bench.json`, a picture beside it and a table into docs/records.md.
"""

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median

import matplotlib.pyplot as plt
import torch

from lecture_lib.base.files import replacing
from lecture_lib.base.paths import DATA
from lecture_lib.base.records import stamp, write_json
from lecture_lib.base.threads import cores, wait_awake
from lecture_lib.batches import get_batch
from lecture_lib.bigram import BigramLanguageModel
from lecture_lib.course.plots import use_style
from lecture_lib.course.records_page import bench_rows, renew, thread_rows
from lecture_lib.course.sampling import one_by_one
from lecture_lib.course.tables import aligned
from lecture_lib.decoding import for_writing
from lecture_lib.evaluation import split_loss
from lecture_lib.gpt import GPT, GPTConfig
from lecture_lib.layer_norm import LayerNormModel
from lecture_lib.nanogpt import NanoGPT, NanoGPTConfig, from_gpt
from lecture_lib.speedrun import SpeedrunConfig, SpeedrunGPT, SpeedrunTraining
from lecture_lib.throughput import peak_flops, training_flops
from lecture_lib.tokenization import load_splits

from .races import counted_text, timed_race

RECORD = DATA / "recorded" / "bench.json"
TEXT = torch.arange(100_000) * 7919 % 65  # what the text is makes no difference to the time
MODELS = {
    "chapter 11, a head at a time": GPT,
    "chapter 13, all heads at once": lambda config: from_gpt(GPT(config)),
    "chapter 16c, the speedrun's": lambda config: SpeedrunGPT(SpeedrunConfig(**asdict(config)), TEXT),
}
FAST_KERNEL = {  # chapter 13's model as it comes: dropout, but none on attention weights
    "chapter 13, attention without dropout": lambda config: NanoGPT(
        NanoGPTConfig(**asdict(config), tied=False, activation="relu")
    ),
}
SMALL = GPTConfig(block_size=256, n_layer=3)  # the speedrun's size
LECTURE = GPTConfig(block_size=256, n_embd=384, n_head=6, n_layer=6)  # the lecture's final one, no dropout


def in_turns(tasks: dict[str, Callable[[], float | None]], rounds: int) -> dict[str, float]:
    """The median seconds of each task over some rounds, all tasks in each; a first round isn't counted.

    A task that returns a number has timed itself.
    """
    seconds = {name: [] for name in tasks}
    for _ in range(rounds + 1):
        for name, task in tasks.items():
            began = time.perf_counter()
            own = task()
            seconds[name].append(time.perf_counter() - began if own is None else own)
    return {name: median(times[1:]) for name, times in seconds.items()}


def training_step(make: Callable, config: GPTConfig, batch_size: int) -> Callable:
    """A function that does forward and backward pass of one batch."""
    model = make(config)
    xb, yb = get_batch({"train": TEXT}, "train", batch_size, config.block_size)

    def step() -> None:
        model.zero_grad()
        model(xb, yb)[1].backward()

    return step


def training(
    config: GPTConfig, batch_size: int, rounds: int, models: dict[str, Callable] = MODELS
) -> dict[str, dict]:
    """Tokens per second and share of the machine's peak of each model, forward and backward."""
    steps = {name: training_step(make, config, batch_size) for name, make in models.items()}
    seconds = in_turns(steps, rounds)
    peak = peak_flops(torch.device("cpu"), torch.float32)
    share = training_flops(from_gpt(GPT(config))) / peak  # the same products in all of them
    rates = {name: batch_size * config.block_size / s for name, s in seconds.items()}
    first = rates[next(iter(models))]
    return {
        name: {"ratio": rate / first, "tokens per second": rate, "share of peak": rate * share}
        for name, rate in rates.items()
    }


def seconds_a_token(tokens: Callable[[], Iterator[torch.Tensor]]) -> float:
    """Seconds per token, without the first, for which the prompt has to be read."""
    stream = tokens()
    next(stream)
    began = time.perf_counter()
    count = sum(1 for _ in stream)
    return (time.perf_counter() - began) / count


def sampling(config: GPTConfig, new: int, rounds: int) -> dict[str, dict]:
    """Tokens per second of chapter 13's model near the full context, by each way of writing."""
    model = from_gpt(GPT(config)).eval()
    prompt = TEXT[None, : config.block_size - new]  # (1, T)
    split, half = for_writing(model), for_writing(model, torch.bfloat16)
    ways = {
        "read again at each token (chapter 06)": lambda: one_by_one(model, prompt, 5, {}),
        "with a cache (chapter 13)": lambda: model.stream(prompt, new),
        "and layers split among the cores": lambda: split.stream(prompt, new),
        "and weights in bfloat16": lambda: half.stream(prompt, new),
    }
    return token_rates(ways, rounds)


def long_text(config: GPTConfig, rounds: int) -> dict[str, dict]:
    """Tokens per second beyond the context, where the window moves by one token at a time, or by half."""
    model, size = for_writing(from_gpt(GPT(config))), config.block_size
    prompt = TEXT[None, :size]  # (1, block_size)
    ways = {
        "the window moves by one token": lambda: model.stream(prompt, 5),
        "the window moves by half": lambda: model.stream(prompt, 1 + size // 2, keep=size // 2),
    }
    return token_rates(ways, rounds)


def token_rates(ways: dict[str, Callable[[], Iterator]], rounds: int) -> dict[str, dict]:
    """Tokens per second of each way of writing, measured in turns, and as multiples of the first."""
    timed = {name: partial(seconds_a_token, tokens) for name, tokens in ways.items()}
    rates = {name: 1 / seconds for name, seconds in in_turns(timed, rounds).items()}
    first = next(iter(rates.values()))
    return {name: {"ratio": rate / first, "tokens per second": rate} for name, rate in rates.items()}


def awake(measure: Callable, *arguments):
    """What `measure` returns in a process whose threads wait awake, as those of `lecture sample` do."""
    wait_awake()  # for processes begun from here on: this one has loaded torch
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, torch.set_num_threads, (cores(),)) as process:
        return process.submit(measure, *arguments).result()


def writing(config: GPTConfig) -> dict[str, dict[str, float]]:
    """What `threads` finds for a few tokens written by chapter 13's model, its layers laid out for that."""
    model, idx = for_writing(from_gpt(GPT(config))), torch.zeros(1, 1, dtype=torch.long)
    name = "to write 16 characters: the lecture's full size"
    return threads({name: lambda: model.generate(idx, 16)}, rounds=2)


def rung_steps() -> dict[str, Callable]:
    """A training step of each size of the course's models, on as many tokens as its chapter takes."""
    layer_norm = partial(LayerNormModel, vocab_size=65, block_size=8, n_embd=32, n_head=4, n_layer=3)
    shipped = GPTConfig(block_size=128, n_embd=128)
    makers = {
        "chapter 03": (lambda _: BigramLanguageModel(65), GPTConfig(block_size=8), 32),
        "chapter 10": (lambda _: layer_norm(), GPTConfig(block_size=8), 32),
        "chapter 11": (GPT, GPTConfig(), 16),
        "the small model in data/checkpoint": (GPT, shipped, 16),
        "twice as large": (GPT, replace(shipped, n_embd=192), 16),
        "the lecture's full size": (MODELS["chapter 13, all heads at once"], LECTURE, 4),
    }
    return {f"a training step: {name}": training_step(*maker) for name, maker in makers.items()}


@contextmanager
def busy_neighbour() -> Iterator[None]:
    """While the block runs, another program keeps one core busy."""
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        neighbour.kill()
        neighbour.wait()


def threads(steps: dict[str, Callable], rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each step with one thread and with all: on an idle machine, beside a busy program."""
    numbers, found = (1, cores()), {name: {} for name in steps}

    def measure(where: str) -> None:
        tasks = {pair: partial(with_threads, *pair, steps) for pair in product(steps, numbers)}
        for (name, number), seconds in in_turns(tasks, rounds).items():
            found[name][f"{where}, {number} thread{'s' * (number > 1)}"] = 1000 * seconds

    measure("idle")
    with busy_neighbour():
        measure("busy")
    return found


def with_threads(name: str, number: int, steps: dict[str, Callable]) -> float:
    """Seconds of the named step with that number of threads: the mean of five, after a first one."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    steps[name]()
    began, repeats = time.perf_counter(), 5
    for _ in range(repeats):
        steps[name]()
    torch.set_num_threads(before)
    return (time.perf_counter() - began) / repeats


GROWTH = {
    "context T": ("block_size", (32, 64, 128, 256, 512)),
    "width n_embd": ("n_embd", (64, 128, 256, 384)),
    "batch size B": ("batch_size", (1, 2, 4, 8, 16, 32)),
}


def growth(rounds: int) -> dict[str, dict]:
    """Training tokens per second of each model as T, width or batch grow, the others at the speedrun's."""
    curves = {}
    for label, (name, sizes) in GROWTH.items():
        rates = {model: [] for model in MODELS}
        for size in sizes:
            config = SMALL if name == "batch_size" else replace(SMALL, **{name: size})
            measured = training(config, size if name == "batch_size" else 8, rounds)
            for model in MODELS:
                rates[model].append(measured[model]["tokens per second"])
        curves[label] = {"sizes": list(sizes), "tokens per second": rates}
    return curves


SHORT_RACES = {"1.88": 10, "1.48": 150}  # validation losses, and steps of a race that ends below each


def short_races() -> dict[str, dict[str, float]]:
    """For each loss: seconds of a race from random weights, and the validation loss that it ends at."""
    val, found = load_splits()[1]["val"], {}
    for target, steps in SHORT_RACES.items():
        model, seconds = timed_race(
            1337, (SpeedrunConfig(), SpeedrunTraining(max_iters=steps)), *counted_text()
        )
        found[target] = {"seconds": seconds, "val": split_loss(model, val)}
    return found


def benchmark(rounds: int = 3) -> dict:
    """All measurements, with the machine and the date."""
    return {
        **stamp("make bench"),
        "cores": torch.get_num_threads(),
        "peak GFLOP/s": peak_flops(torch.device("cpu"), torch.float32) / 1e9,
        "training, the speedrun's size, 8 x 256": training(SMALL, 8, rounds),
        "training, the lecture's size, 64 x 256": training(LECTURE, 64, 2),
        "training, the lecture's size and dropout, 64 x 256": training(
            replace(LECTURE, dropout=0.2), 64, 2, MODELS | FAST_KERNEL
        ),
        "sampling, the lecture's size, near the full context": awake(sampling, LECTURE, 64, 3),
        "sampling, the lecture's size, a long text": awake(long_text, LECTURE, 3),
        "threads": threads(rung_steps(), rounds=2) | awake(writing, LECTURE),
        "growth": growth(rounds=2),
        "to a loss": short_races(),
    }


def draw_growth(curves: dict[str, dict], path: Path) -> None:
    """Tokens per second over T, width and batch size, a line for each model."""
    use_style()
    fig, all_axes = plt.subplots(1, len(curves), figsize=(11, 3.2), sharey=True)
    for axes, (label, curve) in zip(all_axes, curves.items(), strict=True):
        for model, rates in curve["tokens per second"].items():
            axes.plot(curve["sizes"], rates, marker="o", label=model)
        axes.set(xlabel=label, xscale="log", yscale="log", xticks=curve["sizes"], xticklabels=curve["sizes"])
        axes.minorticks_off()
    ticks = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
    all_axes[0].set(ylabel="training tokens per second", yticks=ticks, yticklabels=[f"{n:,}" for n in ticks])
    all_axes[0].legend(fontsize=8)
    with replacing(path) as temporary:
        fig.savefig(temporary, format="png", dpi=110)
    plt.close(fig)


def record_benchmark() -> str:
    """Measure, write JSON, picture and docs/records.md; return the table as text."""
    results = benchmark()
    write_json(RECORD, results)
    draw_growth(results["growth"], RECORD.with_suffix(".png"))
    renew()
    return f"{aligned(bench_rows(results))}\n\n{aligned(thread_rows(results['threads']))}"
