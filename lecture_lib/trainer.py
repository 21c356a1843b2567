"""nanoGPT's training script.

From notebooks/13b_trainer.ipynb.
Video 1:46:22.
Written by `lecture promote`: edit the notebook, not this file.
"""

import argparse
import contextlib
import io
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lecture_lib.base.device import choose_device, describe_device
from lecture_lib.base.errors import CourseError
from lecture_lib.base.files import write_text
from lecture_lib.base.paths import OUT
from lecture_lib.batches import get_batch
from lecture_lib.long_run import LongRun
from lecture_lib.nanogpt import NanoGPT, NanoGPTConfig
from lecture_lib.recipe import warmup_cosine, weight_decay_groups
from lecture_lib.throughput import peak_flops, training_flops
from lecture_lib.tokenization import load_splits
from lecture_lib.training import TrainConfig, config_parser, estimate_loss

__all__ = [
    "BATCH",
    "CHOICES",
    "COLUMNS",
    "ESTIMATE",
    "PIECES",
    "SIZES",
    "Processes",
    "Trainer",
    "TrainerConfig",
    "append_row",
    "begin_log",
    "command_line",
    "joined_processes",
    "new_model",
    "read_log",
    "reseed",
    "training_device",
]

BATCH, ESTIMATE, PIECES = range(3)  # what random numbers are for; piece i takes PIECES + i


def reseed(seed: int, step: int, purpose: int) -> None:
    """Seed torch's generators from three numbers: what is drawn next depends on nothing else."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step, purpose)).generate_state(1)[0]))


@dataclass(frozen=True)
class Processes:
    """This process among those that train one model together; alone, unless they are counted."""

    rank: int = 0  # this one's number
    count: int = 1

    @property
    def first(self) -> bool:
        """The one that estimates, writes and speaks."""
        return self.rank == 0

    def share(self, n: int) -> range:
        """The numbers of this process's pieces, of n pieces dealt out evenly."""
        each = n // self.count
        return range(self.rank * each, (self.rank + 1) * each)

    def parallel(self, model: nn.Module) -> nn.Module:
        """The model so that its gradients, whoever computed them, become their mean over all processes."""
        return DistributedDataParallel(model) if self.count > 1 else model

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean of `values` over all processes, the same for each of them."""
        if self.count > 1:
            dist.all_reduce(values)  # their sum, in place
            values /= self.count
        return values

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether `flag` is set in at least one process: they learn of it before the same step."""
        if self.count == 1:
            return flag
        return bool(self.mean(torch.tensor(float(flag), device=device)) > 0)


@dataclass(frozen=True)
class TrainerConfig(TrainConfig):
    """Settings of the trainer; the defaults are for the lecture's small model (video 1:37:49)."""

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
    grad_clip: float = 1.0  # longest gradient that is taken as it is; 0: any
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
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of: {', '.join(choices)}")


CHOICES = {
    "device": ("auto", "cuda", "mps", "cpu"),
    "dtype": ("auto", "float32", "bfloat16"),
    "compile": ("auto", "on", "off"),
}

COLUMNS = ("step", "lr", "loss", "grad_norm", "tokens_per_second", "mfu", "train", "val")  # of log.csv


def begin_log(path: Path, last: int) -> None:
    """Begin a log; of an interrupted run's, keep the complete rows up to step `last`."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines[1:] if line.endswith("\n") and int(line.split(",")[0]) <= last]
    write_text(path, ",".join(COLUMNS) + "\n" + "".join(kept))


def append_row(path: Path, row: dict[str, float]) -> None:
    """Append one row to a log; a column that `row` hasn't stays empty."""
    with path.open("a", encoding="utf-8", newline="\n") as log:
        log.write(",".join(str(row.get(column, "")) for column in COLUMNS) + "\n")


def read_log(path: Path) -> np.ndarray:
    """A log, by column: read_log(path)["loss"] has its value of each row, nan where it's empty."""
    return np.atleast_1d(np.genfromtxt(path, delimiter=",", names=True))


@dataclass
class Trainer(LongRun):
    """Chapter 11's long run with a real project's recipe and log, in one process or several.

    Trains any model whose forward(idx, targets) returns logits and loss, and whose `config` is a dataclass
    with n_layer, n_embd and block_size. `folder` gets what LongRun writes there, and `log.csv`. All that is
    random follows from facts["seed"] and the number of the step. Raises CourseError if the processes
    can't share the micro-batches evenly.
    """

    processes: Processes = Processes()
    stopping: bool = False  # asked to end between two steps

    def __post_init__(self):
        super().__post_init__()
        c, on_cuda = self.config, self.device.type == "cuda"
        if c.micro_batches % self.processes.count:
            raise CourseError(
                f"micro_batches is {c.micro_batches}, and there are {self.processes.count} processes; "
                f"expected a multiple of them that divides batch_size = {c.batch_size}"
            )
        groups = weight_decay_groups(self.model, c.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, c.learning_rate, betas=(0.9, c.beta2), fused=True)
        self.log = self.folder / "log.csv"
        half = c.dtype == "bfloat16" or (c.dtype == "auto" and on_cuda and torch.cuda.is_bf16_supported())
        self.dtype = torch.bfloat16 if half else torch.float32
        self.compiled = c.compile == "on" or (c.compile == "auto" and on_cuda)

    def take_steps(self, splits: dict[str, torch.Tensor]) -> None:
        """The loop, from `step` to the end: called by `train`. KeyboardInterrupt once `stopping` is set."""
        self.splits = splits
        self.parallel = self.processes.parallel(torch.compile(self.model) if self.compiled else self.model)
        if self.processes.first:
            self.flops = (
                training_flops(self.model) / self.processes.count / peak_flops(self.device, self.dtype)
            )
            begin_log(self.log, self.step if self.history.steps else -1)
        self.logged = (self.step, time.perf_counter())
        if not self.history.steps:
            self.between_steps()
        while self.step < self.config.max_iters:
            self.take_step()
            self.step += 1
            self.between_steps()

    def take_step(self) -> None:
        """One step of the optimizer, with the whole batch's gradient."""
        c = self.config
        self.lr = warmup_cosine(self.step, c.learning_rate, c.min_lr, c.warmup_iters, c.max_iters)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        self.loss = self.processes.mean(self.accumulate())
        self.grad_norm = nn.utils.clip_grad_norm_(self.model.parameters(), c.grad_clip or math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def accumulate(self) -> torch.Tensor:
        """Add up the gradients of this process's pieces; returns their mean loss."""
        mine, loss = self.processes.share(self.config.micro_batches), 0.0
        xb, yb = self.batch()  # (B, T), (B, T)
        for i in mine:
            reseed(self.facts["seed"], self.step, PIECES + i)  # for dropout
            wait = self.processes.count > 1 and i != mine[-1]  # all processes average their sums, once
            with self.parallel.no_sync() if wait else nullcontext():
                with self.precision():
                    piece = self.parallel(xb[i].to(self.device), yb[i].to(self.device))[1] / len(mine)
                piece.backward()
            loss += piece.detach()
        return loss

    def batch(self) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """This step's batch, inputs and targets in `micro_batches` pieces; the same in each process."""
        c = self.config
        reseed(self.facts["seed"], self.step, BATCH)
        xb, yb = get_batch(self.splits, "train", c.batch_size, c.block_size)  # (B, T), (B, T)
        return xb.chunk(c.micro_batches), yb.chunk(c.micro_batches)

    def precision(self) -> torch.autocast:
        """Within it, matrix products are computed in the run's dtype; parameters stay float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def between_steps(self) -> None:
        """Log, estimate, keep and save, all by the first process; stop if any process was asked to."""
        if self.processes.first:
            self.record()
            self.before_step(self.step, self.history)
        if self.step < self.config.max_iters and self.processes.any(self.stopping, self.device):
            if self.processes.first:
                self.save(self.step)
                print(f"stopped before step {self.step:,}; the same command goes on from there")
            raise KeyboardInterrupt

    def record(self) -> None:
        """Write a row of the log if one is due, with an estimate of the losses if one is due."""
        c = self.config
        estimating = self.step % c.eval_interval == 0 or self.step == c.max_iters
        if not estimating and self.step % c.log_interval:
            return
        row = {"step": self.step, **self.measured()}
        if estimating:
            reseed(self.facts["seed"], 0, ESTIMATE)  # of the same batches each time
            with self.precision():
                losses = estimate_loss(self.model, self.splits, c)
            self.history.add(self.step, losses)
            speed = f", {row['tokens_per_second']:,} tokens/s, MFU {row['mfu']:.1%}" if self.step else ""
            print(
                f"step {self.step:5}: train loss {losses['train']:.4f}, val loss {losses['val']:.4f}{speed}"
            )
            row |= losses
        append_row(self.log, row)
        self.logged = (self.step, time.perf_counter())

    def measured(self) -> dict[str, float]:
        """What the steps since the last row tell: the last one's numbers, and their speed."""
        if self.step == self.logged[0]:
            return {}
        last = {
            "lr": self.lr,
            "loss": self.loss.item(),
            "grad_norm": self.grad_norm.item(),
        }  # waits for a GPU
        steps, seconds = self.step - self.logged[0], time.perf_counter() - self.logged[1]
        speed = steps * self.config.batch_size * self.config.block_size / seconds
        return {**last, "tokens_per_second": round(speed), "mfu": round(speed * self.flops, 4)}

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

    Raises CourseError for a device that this machine hasn't.
    """
    found = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    device = choose_device() if name == "auto" else torch.device(name)
    if not found[device.type]:
        have = ", ".join(kind for kind, there in found.items() if there)
        raise CourseError(f"device is {name}, which this machine hasn't; expected auto, or one of: {have}")
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


SIZES = {"n_layer": 4, "n_head": 4, "n_embd": 64, "dropout": 0.0}  # of the model that the script builds


def command_line() -> argparse.ArgumentParser:
    """An option for each setting of a run, for the model's sizes, and for where the run is kept."""
    parser = config_parser("Train a GPT on tiny Shakespeare, alone or under torchrun.", TrainerConfig())
    for name, value in SIZES.items():
        option = f"--{name.replace('_', '-')}"
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
    sizes = {name: settings.pop(name) for name in SIZES}
    tokenizer, splits = load_splits()
    try:
        config = TrainerConfig(**settings)
        model = new_model(tokenizer.vocab_size, config.block_size, sizes, seed)
    except ValueError as error:
        parser.error(str(error))
    facts = {"command": "python -m lecture_lib.trainer", "seed": seed}
    try:
        device = training_device(config.device)
        model = model.to(device)
        with joined_processes(device) as processes, contextlib.ExitStack() as stack:
            if not processes.first:  # only one speaks
                stack.enter_context(redirect_stdout(io.StringIO()))
            print(f"{describe_device(device)}, processes: {processes.count}, folder: {folder}")
            trainer = Trainer(
                model, tokenizer, config, folder, facts, save_seconds=save_seconds, processes=processes
            )
            for signum in (signal.SIGINT, signal.SIGTERM):
                signal.signal(signum, trainer.stop)
            trainer.train(splits)
    except CourseError as error:
        sys.exit(f"trainer: {error}")
    except KeyboardInterrupt:
        sys.exit(130)  # as the shell has it


if __name__ == "__main__":
    main()
