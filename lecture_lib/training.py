"""Settings, loss estimates and the training loop.

From notebooks/03_bigram.ipynb, section "5. Training: a loss one can trust, and the loop".
Video 22:11, 34:53, 38:00.
Written by `lecture promote`: edit the notebook, not this file.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

import torch
from torch import nn
from tqdm import tqdm

from lecture_lib.batches import get_batch
from lecture_lib.tokenization import CharTokenizer

__all__ = [
    "EVAL_TOKENS",
    "History",
    "TrainConfig",
    "adamw",
    "config_parser",
    "estimate_loss",
    "eval_mode",
    "sample_text",
    "train",
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
    """Within the `with` block, `model` is in eval mode; afterwards, in the mode in which it was."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


EVAL_TOKENS = 2**12  # that pass through the model at a time while its loss is estimated


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


def train(
    model: nn.Module,
    splits: dict[str, torch.Tensor],
    config: TrainConfig,
    optimizer: torch.optim.Optimizer | None = None,
    history: History | None = None,
    first_step: int = 0,
    before_step: Callable[[int, History], None] | None = None,
) -> History:
    """Train `model` in place with AdamW; estimate and print the losses on the way (video 34:53, 38:00).

    `splits` has "train" and "val", 1-D tensors of token ids; `model(xb, yb)` returns logits and loss.
    Estimates before the step every `eval_interval` steps and before the last one; draws from torch's
    global generator in the order of the lecture's script. The progress bar goes to standard output.
    `before_step(step, history)` is called before each batch is drawn, and may save the state of the run. A
    run goes on from `first_step` if model, optimizer, history and generator are as they were before it.
    """
    device = next(model.parameters()).device
    optimizer = optimizer or adamw(model, config)
    history = history or History()
    tokens = config.batch_size * config.block_size  # a step
    bar = {"file": sys.stdout, "leave": False, "unit": "token", "unit_scale": tokens, "initial": first_step}
    for step in tqdm(range(first_step, config.max_iters), total=config.max_iters, **bar):
        due = step % config.eval_interval == 0 or step == config.max_iters - 1
        if due and step not in history.steps:
            losses = estimate_loss(model, splits, config)
            history.add(step, losses)
            tqdm.write(f"step {step:5}: train loss {losses['train']:.4f}, val loss {losses['val']:.4f}")
        if before_step:
            before_step(step, history)
        xb, yb = get_batch(splits, "train", config.batch_size, config.block_size, device)  # (B, T), (B, T)
        _, loss = model(xb, yb)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return history


@torch.no_grad()
def sample_text(
    model: nn.Module,
    tokenizer: CharTokenizer,
    max_new_tokens: int,
    prompt: str = "\n",
    seed: int = 1337,
    **how: float | None,
) -> str:
    """The prompt and what `model.generate` appends to it, as text; seeds torch's generator first.

    `how` goes to `generate`: what a later model lets one choose, such as its temperature.
    """
    device = next(model.parameters()).device
    torch.manual_seed(seed)
    idx = torch.tensor([tokenizer.encode(prompt)], device=device)  # (1, T)
    with eval_mode(model):
        ids = model.generate(idx, max_new_tokens, **how)[0]  # (T + max_new_tokens,)
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
