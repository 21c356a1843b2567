"""nanoGPT's training script.

From notebooks/13c_trainer.ipynb.
Video 1:46:22.
Written by `lecture promote`: edit the notebook, not this file.
"""

import argparse
import contextlib
import io
import math
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import ClassVar

import numpy as np
import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lecture_lib.base.device import choose_device, cuda_works, describe_device
from lecture_lib.base.errors import CourseError
from lecture_lib.base.files import explaining_os_errors, write_text
from lecture_lib.base.paths import OUT
from lecture_lib.base.records import read_json
from lecture_lib.batches import get_batch
from lecture_lib.long_run import LongRun
from lecture_lib.nanogpt import NanoGPT, NanoGPTConfig
from lecture_lib.recipe import warmup_cosine, weight_decay_groups
from lecture_lib.throughput import peak_flops, training_flops
from lecture_lib.tokenization import load_splits
from lecture_lib.training import History, TrainConfig, check_loss, config_parser, estimate_loss

__all__ = [
    "COMPILERS",
    "MODEL_OPTIONS",
    "Processes",
    "RunLog",
    "Trainer",
    "TrainerConfig",
    "command_line",
    "compiles",
    "joined_processes",
    "new_model",
    "read_log",
    "reseed",
    "training_device",
]


def reseed(seed: int, step: int, purpose: str, piece: int = 0) -> None:
    """Seed PyTorch's generators for a purpose: "batch", "estimate", or the "dropout" of a piece of the batch.

    What is drawn next depends on these four alone.
    """
    number = ("batch", "estimate", "dropout").index(purpose) + piece  # pieces count up from the last
    torch.manual_seed(int(np.random.SeedSequence((seed, step, number)).generate_state(1)[0]))


@dataclass(frozen=True)
class Processes:
    """The processes that train one model together, as one of them sees it; by default it is alone."""

    rank: int = 0  # this process's number
    count: int = 1  # of all of them

    @property
    def first(self) -> bool:
        """Whether it is this process that estimates, writes and prints."""
        return self.rank == 0

    def share(self, n: int) -> range:
        """The numbers of this process's pieces when n pieces are dealt out evenly."""
        each = n // self.count
        return range(self.rank * each, (self.rank + 1) * each)

    def parallel(self, model: nn.Module) -> nn.Module:
        """The model, made to average its gradients over all processes in each backward pass."""
        return DistributedDataParallel(model) if self.count > 1 else model

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean of `values` over all processes, the same for each of them."""
        if self.count > 1:
            dist.all_reduce(values)  # their sum, in place
            values /= self.count
        return values

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether `flag` is set in at least one process; all of them get the same answer."""
        if self.count == 1:
            return flag
        return bool(self.mean(torch.tensor(float(flag), device=device)) > 0)


@dataclass(frozen=True)
class TrainerConfig(TrainConfig):
    """Settings of the trainer; the defaults are for the lecture's small model (video 1:37:49)."""

    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {
        "device": ("auto", "cuda", "mps", "cpu"),
        "dtype": ("auto", "float32", "bfloat16"),
        "compile": ("auto", "on", "off"),
    }

    batch_size: int = 16  # B, sequences per optimizer step, of all processes together
    block_size: int = 32  # T, context length in tokens
    max_iters: int = 5000  # optimizer steps
    eval_interval: int = 500  # steps between two estimates of the loss
    eval_iters: int = 200  # batches behind each estimate, per split
    learning_rate: float = 1e-3  # the highest
    min_lr: float = 1e-4  # the last
    warmup_iters: int = 100  # steps until the highest
    weight_decay: float = 0.1  # of matrices
    beta2: float = 0.99  # of AdamW, the memory of its second average
    grad_clip: float = 1.0  # the longest gradient that isn't shortened; 0: any length
    micro_batches: int = 1  # pieces that a batch is computed in, dealt out to the processes
    log_interval: int = 10  # steps between two rows of the log
    device: str = "auto"  # auto, cuda, mps or cpu
    dtype: str = "auto"  # of the matrix products: float32, bfloat16, or auto: bfloat16 on CUDA
    compile: str = "auto"  # by torch.compile: on, off, or auto: on CUDA

    def __post_init__(self):
        super().__post_init__()
        for name in ("min_lr", "warmup_iters", "weight_decay", "grad_clip"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 or more")
        if not 0 <= self.beta2 < 1:
            raise ValueError(f"beta2 is {self.beta2}; expected 0 up to, not including, 1")
        for name in ("micro_batches", "log_interval"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.min_lr > self.learning_rate:
            rates = f"min_lr is {self.min_lr}, learning_rate is {self.learning_rate}"
            raise ValueError(f"{rates}; expected min_lr to be at most that")
        if self.warmup_iters >= self.max_iters:
            steps = f"warmup_iters is {self.warmup_iters}, max_iters is {self.max_iters}"
            raise ValueError(f"{steps}; expected a warm-up that ends before the run does")
        if self.batch_size % self.micro_batches:
            sizes = f"batch_size is {self.batch_size}, micro_batches is {self.micro_batches}"
            raise ValueError(f"{sizes}; expected micro_batches to divide batch_size")
        for name, choices in self.CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of: {', '.join(choices)}")


class RunLog:
    """The table of a run, log.csv: a row now and then, with the latest step's numbers and the speed.

    `tokens` is the number of tokens in a step, `mfu` the MFU of one token a second.
    """

    COLUMNS = ("step", "lr", "loss", "grad_norm", "tokens_per_second", "mfu", "train", "val")

    def __init__(self, path: Path, tokens: int, mfu: float):
        self.path, self.tokens, self.mfu = path, tokens, mfu
        self.latest: dict[str, torch.Tensor | float] = {}  # the latest step's numbers, by column
        self.row_step, self.row_time = 0, time.perf_counter()  # of the row before

    def begin(self, last: int) -> None:
        """Begin a log; of an interrupted run's, keep the rows up to step `last` that aren't damaged."""
        text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.exists() else ""
        rows = re.findall(r"^(\d+)(,[\w.,+-]*\n)", text, re.MULTILINE)
        kept = [step + rest for step, rest in rows if int(step) <= last]
        write_text(self.path, ",".join(self.COLUMNS) + "\n" + "".join(kept))
        self.row_step, self.row_time = max(last, 0), time.perf_counter()

    def measured(self, step: int) -> dict[str, float]:
        """The latest step's numbers and the speed since the row before; empty if no step was taken since."""
        if step == self.row_step:
            return {}
        numbers = {name: float(value) for name, value in self.latest.items()}  # waits for a GPU
        speed = (step - self.row_step) * self.tokens / (time.perf_counter() - self.row_time)
        return {**numbers, "tokens_per_second": round(speed), "mfu": round(speed * self.mfu, 4)}

    def append(self, step: int, row: dict[str, float]) -> None:
        """Append a row; columns that are missing from `row` stay empty."""
        row = {"step": step, **row}
        with explaining_os_errors(self.path), self.path.open("a", encoding="utf-8", newline="\n") as log:
            log.write(",".join(str(row.get(column, "")) for column in self.COLUMNS) + "\n")
        self.row_step, self.row_time = step, time.perf_counter()


def read_log(path: Path) -> np.ndarray:
    """A log, by column: read_log(path)["loss"] has its value of each row, nan where it's empty."""
    return np.atleast_1d(np.genfromtxt(path, delimiter=",", names=True))


COMPILERS = ("g++", "clang++", "c++")  # any of which torch.compile can use


def compiles(choice: str, on_cuda: bool) -> bool:
    """Whether to use torch.compile, by the setting of that name; CourseError if it's on and can't work."""
    found = any(map(shutil.which, COMPILERS))
    if choice == "on" and not found:
        raise CourseError(
            f"compile is on: torch.compile needs a C++ compiler, but none of {', '.join(COMPILERS)} "
            "was found; install one, or leave the setting at auto"
        )
    return found and (choice == "on" or (choice == "auto" and on_cuda))


@dataclass
class Trainer(LongRun):
    """Chapter 10b's long run with a real project's recipe and log, in one process or several.

    Trains any model whose forward(idx, targets) returns logits and loss, and whose `config` is a dataclass
    with n_layer, n_embd and block_size. `folder` gets what LongRun writes there, and `log.csv`. All that is
    random follows from facts["seed"] and the number of the step. Raises CourseError if the processes
    can't share the micro-batches evenly.
    """

    processes: Processes = Processes()
    stopping: bool = field(default=False, init=False)  # asked to end between two steps

    def __post_init__(self):
        super().__post_init__()
        c, count, on_cuda = self.config, self.processes.count, self.device.type == "cuda"
        if c.micro_batches % count:
            raise CourseError(
                f"micro_batches is {c.micro_batches}, and there are {count} processes; "
                f"expected a multiple of them that divides batch_size = {c.batch_size}"
            )
        half = c.dtype == "bfloat16" or (c.dtype == "auto" and on_cuda and torch.cuda.is_bf16_supported())
        self.dtype = torch.bfloat16 if half else torch.float32
        model = torch.compile(self.model) if compiles(c.compile, on_cuda) else self.model
        self.parallel = self.processes.parallel(model)
        mfu = training_flops(self.model) / count / peak_flops(self.device, self.dtype)
        self.log = RunLog(self.folder / "log.csv", c.batch_size * c.block_size, mfu)

    def train(self, splits: dict[str, torch.Tensor]) -> History:
        """As any long run; CourseError, too, if the folder holds the finished model of another run."""
        card_file = self.folder / "model.json"
        kept = read_json(card_file)
        others = [name for name, mine in self.settings.items() if kept.get(name, mine) != mine]
        if others:
            raise CourseError(
                f"{card_file} is the result of another run, which differs in: {', '.join(others)}; "
                "give this run another folder, or delete that model"
            )
        return super().train(splits)

    def make_optimizer(self) -> torch.optim.Optimizer:
        """AdamW, with weight decay for matrices alone."""
        c = self.config
        groups = weight_decay_groups(self.model, c.weight_decay)
        return torch.optim.AdamW(groups, c.learning_rate, betas=(0.9, c.beta2), fused=True)

    def steps(self, splits: dict[str, torch.Tensor]) -> Iterator[int]:
        """Train, estimate and log; yields how many steps are taken, from 0 (or the next, if resumed) on."""
        resumed = bool(self.history.steps)
        if self.processes.first:
            self.log.begin(last=self.first_step if resumed else -1)
        if not resumed:
            self.record(0, splits)
            yield 0
        for step in range(self.first_step, self.config.max_iters):
            self.take_step(step, splits)
            self.record(step + 1, splits)
            yield step + 1

    def take_step(self, step: int, splits: dict[str, torch.Tensor]) -> None:
        """One step of the optimizer, with the whole batch's gradient."""
        c = self.config
        lr = warmup_cosine(step, c.learning_rate, c.min_lr, c.warmup_iters, c.max_iters)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss = self.processes.mean(self.accumulate(step, splits))
        check_loss(loss, step, c)
        grad_norm = nn.utils.clip_grad_norm_(self.model.parameters(), c.grad_clip or math.inf)
        self.log.latest = {"lr": lr, "loss": loss, "grad_norm": grad_norm}
        self.optimizer.step()
        self.optimizer.zero_grad()

    def accumulate(self, step: int, splits: dict[str, torch.Tensor]) -> torch.Tensor:
        """Add up the gradients of this process's pieces; returns their mean loss."""
        mine, loss = self.processes.share(self.config.micro_batches), 0.0
        xb, yb = self.batch(step, splits)  # pieces of (B / micro_batches, T) each
        for i in mine:
            reseed(self.facts["seed"], step, "dropout", piece=i)
            wait = self.processes.count > 1 and i != mine[-1]  # all processes average their sums, once
            with self.parallel.no_sync() if wait else nullcontext():
                with self.precision():
                    piece = self.parallel(xb[i].to(self.device), yb[i].to(self.device))[1] / len(mine)
                piece.backward()
            loss += piece.detach()
        return loss

    def batch(
        self, step: int, splits: dict[str, torch.Tensor]
    ) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """A step's batch, inputs and targets in `micro_batches` pieces; the same in each process."""
        c = self.config
        reseed(self.facts["seed"], step, "batch")
        xb, yb = get_batch(splits, "train", c.batch_size, c.block_size)  # (B, T), (B, T)
        return xb.chunk(c.micro_batches), yb.chunk(c.micro_batches)

    def precision(self) -> torch.autocast:
        """Within it, matrix products are computed in the run's dtype; parameters stay float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def record(self, step: int, splits: dict[str, torch.Tensor]) -> None:
        """Write a row of the log if one is due, with an estimate if one is due: the first process does."""
        c = self.config
        estimating = step % c.eval_interval == 0 or step == c.max_iters
        if not self.processes.first or (step % c.log_interval and not estimating):
            return
        row = self.log.measured(step)
        if estimating:
            reseed(self.facts["seed"], 0, "estimate")  # of the same batches each time
            with self.precision():
                losses = estimate_loss(self.model, splits, c)
            self.history.add(step, losses)
            speed = f", {row['tokens_per_second']:,} tokens/s, MFU {row['mfu']:.1%}" if row else ""
            print(f"step {step:5}: train loss {losses['train']:.4f}, val loss {losses['val']:.4f}{speed}")
            row |= losses
        self.log.append(step, row)

    def between_steps(self, step: int) -> None:
        """Keep the best model and save the state now and then: the first process does.

        Raises KeyboardInterrupt, with the state saved, if any process is `stopping`.
        """
        if self.processes.first:
            super().between_steps(step)
        if step < self.config.max_iters and self.processes.any(self.stopping, self.device):
            if self.processes.first:
                self.save(step)
                print(f"stopped before step {step:,}; the same command goes on from there")
            raise KeyboardInterrupt

    def folder_of_its_own(self) -> contextlib.AbstractContextManager:
        """As for any long run; the first process, which alone writes, sees to it."""
        return super().folder_of_its_own() if self.processes.first else nullcontext()

    def finish(self) -> None:
        """Leave the best model as the run's result: the first process does."""
        if self.processes.first:
            super().finish()
            print(f"best val loss {min(self.history.val):.4f}")

    def stop(self, signum: int, frame: FrameType | None) -> None:
        """A signal's handler: end between two steps, with the state saved. A second signal ends at once."""
        self.stopping = True
        signal.signal(signum, signal.SIG_DFL)


def new_model(vocab_size: int, block_size: int, sizes: dict, seed: int) -> NanoGPT:
    """The model to train, without biases as nanoGPT's; `sizes` are fields of its configuration."""
    torch.manual_seed(seed)
    return NanoGPT(NanoGPTConfig(vocab_size=vocab_size, block_size=block_size, bias=False, **sizes))


def training_device(name: str) -> torch.device:
    """The device for a setting of that name. Of several processes, each takes a GPU, or all share the CPU.

    Raises CourseError for a device that this machine doesn't have.
    """
    found = {"cpu": True, "cuda": cuda_works(), "mps": torch.backends.mps.is_available()}
    device = choose_device() if name == "auto" else torch.device(name)
    if not found[device.type]:
        have = ", ".join(kind for kind, there in found.items() if there)
        raise CourseError(f"device is {name}: this machine has no {name}; expected auto, or one of: {have}")
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    alone = "RANK" not in os.environ  # torchrun tells each process who it is
    return device if alone or device.type == "cuda" else torch.device("cpu")


@contextmanager
def joined_processes(device: torch.device) -> Iterator[Processes]:
    """Within it, this process is connected to the others that torchrun started, if it did."""
    if "RANK" not in os.environ:
        yield Processes()
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


MODEL_OPTIONS = ("n_layer", "n_head", "n_embd", "dropout")  # sizes that the command line asks for


def command_line() -> argparse.ArgumentParser:
    """An option for each setting of a run, for the model's sizes, and for where the run is kept."""
    parser = config_parser("Train a GPT on tiny Shakespeare, alone or under torchrun.", TrainerConfig())
    for name in MODEL_OPTIONS:
        option, value = f"--{name.replace('_', '-')}", getattr(NanoGPTConfig(), name)
        parser.add_argument(option, type=type(value), default=value, help="default: %(default)s")
    parser.add_argument("--folder", type=Path, default=OUT / "trainer", help="default: %(default)s")
    parser.add_argument(
        "--save-seconds", type=float, default=300.0, help="between two savings; default: %(default)s"
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    """Train from the command line: `python -m lecture_lib.trainer`, also under torchrun."""
    parser = command_line()
    settings = vars(parser.parse_args(argv))
    seed, folder, save_seconds = (settings.pop(name) for name in ("seed", "folder", "save_seconds"))
    sizes = {name: settings.pop(name) for name in MODEL_OPTIONS}
    if seed < 0:
        parser.error(f"seed is {seed}; expected 0 or more")
    tokenizer, splits = load_splits()
    try:
        config = TrainerConfig(**settings)
        for split in splits:
            get_batch(splits, split, 1, config.block_size)  # raises ValueError if the text is too short
        model = new_model(tokenizer.vocab_size, config.block_size, sizes, seed)
    except ValueError as error:
        parser.error(str(error))
    facts = {"command": "python -m lecture_lib.trainer", "seed": seed}
    try:
        device = training_device(config.device)
        model = model.to(device)
        with joined_processes(device) as processes, contextlib.ExitStack() as stack:
            if not processes.first:  # only one prints
                stack.enter_context(redirect_stdout(io.StringIO()))
            trainer = Trainer(
                model, tokenizer, config, folder, facts, save_seconds=save_seconds, processes=processes
            )
            print(f"{describe_device(device)}, processes: {processes.count}, folder: {folder}")
            for signum in (signal.SIGINT, signal.SIGTERM):
                signal.signal(signum, trainer.stop)
            trainer.train(splits)
    except CourseError as error:
        sys.exit(f"trainer: {error}")
    except KeyboardInterrupt:
        sys.exit(130)  # as the shell has it
    if "RANK" in os.environ:  # all is written, and torch's threads abort one in twenty processes that tidy up
        sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    main()
