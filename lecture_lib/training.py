"""Settings, loss estimates and the training loop.

From notebooks/03_bigram.ipynb, section "8. `train`: the same loop for every chapter".
Video 22:11, 34:53, 38:00.
Written by `lecture promote`: edit the notebook, not this file.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

import torch
from torch import nn
from tqdm import tqdm

from lecture_lib.base.errors import CourseError
from lecture_lib.batches import get_batch
from lecture_lib.tokenization import CharTokenizer

__all__ = [
    "EVAL_TOKENS",
    "History",
    "TrainConfig",
    "adamw",
    "check_loss",
    "config_parser",
    "estimate_loss",
    "eval_mode",
    "progress_bar",
    "sample_text",
    "train",
    "training_steps",
]


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; the defaults are the lecture's for the bigram model (video 38:00)."""

    batch_size: int = 32  # B, sequences per optimizer step
    block_size: int = 8  # T, context length in tokens
    max_iters: int = 3000  # optimizer steps
    eval_interval: int = 300  # steps between two estimates of the loss
    eval_iters: int = 200  # batches behind each estimate, per split
    learning_rate: float = 1e-2  # of AdamW

    def __post_init__(self):
        for setting in fields(TrainConfig):  # a chapter that adds settings has rules of its own for them
            value = getattr(self, setting.name)
            if not value > 0:
                raise ValueError(f"{setting.name} is {value}; expected a positive number")


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Within the `with` block `model` is in eval mode; afterwards, in the mode that it had before."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


EVAL_TOKENS = 2**12  # tokens that pass through the model at a time while its loss is estimated


@torch.no_grad()
def estimate_loss(model: nn.Module, splits: dict[str, torch.Tensor], config: TrainConfig) -> dict[str, float]:
    """Mean loss of each split over `eval_iters` random batches, in nats per token (video 38:00).

    The batches, drawn in order, go through the model several at a time. Leaves the model in its mode.
    """
    device = next(model.parameters()).device
    together = max(1, EVAL_TOKENS // (config.batch_size * config.block_size))  # batches at a time
    means = {}
    with eval_mode(model):
        for split in splits:
            total = 0.0
            for done in range(0, config.eval_iters, together):
                rows = min(together, config.eval_iters - done) * config.batch_size
                xb, yb = get_batch(splits, split, rows, config.block_size, device)  # (rows, T), (rows, T)
                total += model(xb, yb)[1].item() * rows
            means[split] = total / (config.eval_iters * config.batch_size)
    return means


@dataclass
class History:
    """The estimates of a training run: at `steps[i]` optimizer steps, the mean losses in nats per token."""

    steps: list[int] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    val: list[float] = field(default_factory=list)

    def add(self, step: int, losses: dict[str, float]) -> None:
        """Append one estimate, as `estimate_loss` returns it."""
        self.steps.append(step)
        self.train.append(losses["train"])
        self.val.append(losses["val"])


def adamw(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """The lecture's optimizer for all parameters of `model`, each step in one fused kernel."""
    return torch.optim.AdamW(model.parameters(), lr=config.learning_rate, fused=True)


def progress_bar(config: TrainConfig, first_step: int = 0) -> Iterable[int]:
    """The numbers of the steps from `first_step` on; a bar on standard output counts their tokens."""
    return tqdm(
        range(first_step, config.max_iters),
        initial=first_step,
        total=config.max_iters,
        unit="token",
        unit_scale=config.batch_size * config.block_size,  # tokens in a step
        file=sys.stdout,
        leave=False,
    )


def check_loss(loss: torch.Tensor, step: int, config: TrainConfig) -> None:
    """Raise CourseError, with advice, if the loss at `step` is infinite or not a number."""
    if not torch.isfinite(loss):
        raise CourseError(
            f"the loss is {loss.item()} at step {step}, so training can't go on; learning_rate is "
            f"{config.learning_rate}: try a tenth of it"
        )


def training_steps(
    model: nn.Module,
    splits: dict[str, torch.Tensor],
    config: TrainConfig,
    optimizer: torch.optim.Optimizer,
    history: History,
    first_step: int = 0,
) -> Iterator[int]:
    """Train `model` in place, a step at a time; yields each step's number before it is taken.

    `splits` has "train" and "val", 1-D tensors of token ids; `model(xb, yb)` returns logits and loss.
    Estimates the losses every `eval_interval` steps and before the last one, prints them, and adds them to
    `history` (video 34:53, 38:00). Draws from torch's global generator in the order of the lecture's script.
    A run can go on from `first_step` if model, optimizer, history and generator are as they were when that
    number was yielded.
    """
    device = next(model.parameters()).device
    for step in progress_bar(config, first_step):
        due = step % config.eval_interval == 0 or step == config.max_iters - 1
        if due and step not in history.steps:  # a resumed run has this step's estimate
            losses = estimate_loss(model, splits, config)
            history.add(step, losses)
            tqdm.write(f"step {step:5}: train loss {losses['train']:.4f}, val loss {losses['val']:.4f}")
        yield step
        xb, yb = get_batch(splits, "train", config.batch_size, config.block_size, device)  # (B, T), (B, T)
        _, loss = model(xb, yb)
        check_loss(loss, step, config)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def train(
    model: nn.Module,
    splits: dict[str, torch.Tensor],
    config: TrainConfig,
    optimizer: torch.optim.Optimizer | None = None,
) -> History:
    """Train `model` in place, with `adamw` by default; return the estimates (video 38:00)."""
    history = History()
    for _ in training_steps(model, splits, config, optimizer or adamw(model, config), history):
        pass
    return history


@torch.no_grad()
def sample_text(
    model: nn.Module,
    tokenizer: CharTokenizer,
    max_new_tokens: int,
    prompt: str = "\n",
    seed: int = 1337,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
) -> str:
    """The prompt and what `model.generate` appends to it, as text; seeds torch's generator first.

    The last three, from chapter 06, are passed to `generate` if they are set.
    """
    choices = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    chosen = {name: value for name, value in choices.items() if value is not None}
    device = next(model.parameters()).device
    torch.manual_seed(seed)
    idx = torch.tensor([tokenizer.encode(prompt)], device=device)  # (1, T)
    with eval_mode(model):
        ids = model.generate(idx, max_new_tokens, **chosen)[0]  # (T + max_new_tokens,)
    return tokenizer.decode(ids.tolist())


def config_parser(description: str, default: TrainConfig) -> argparse.ArgumentParser:
    """A command line with an option for each setting of `default`, and `--seed`."""
    parser = argparse.ArgumentParser(description=description)
    for setting in fields(default):
        value = getattr(default, setting.name)
        option = f"--{setting.name.replace('_', '-')}"
        parser.add_argument(option, type=type(value), default=value, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1337, help="default: %(default)s")
    return parser
