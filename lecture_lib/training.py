"""Training: a loss one can trust, and the loop.

Video 22:11, 34:53, 38:00.
Promoted from notebooks/03_bigram.ipynb by `lecture promote`: edit the notebook, not this file.
"""

import argparse
import sys
from dataclasses import dataclass, field, fields

import torch
from torch import nn
from tqdm import tqdm

from lecture_lib.batches import get_batch
from lecture_lib.tokenization import CharTokenizer

__all__ = ["History", "TrainConfig", "config_parser", "estimate_loss", "sample_text", "train"]


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
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name} is {value}; expected a positive number")


@torch.no_grad()
def estimate_loss(model: nn.Module, splits: dict[str, torch.Tensor], config: TrainConfig) -> dict[str, float]:
    """Mean loss of each split over `eval_iters` random batches, in nats per token (video 38:00).

    Leaves the model in the mode, train or eval, in which it was.
    """
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    means = {}
    for split in splits:
        losses = torch.zeros(config.eval_iters)
        for k in range(config.eval_iters):
            xb, yb = get_batch(splits, split, config.batch_size, config.block_size, device)  # (B, T), (B, T)
            losses[k] = model(xb, yb)[1]
        means[split] = losses.mean().item()
    model.train(was_training)
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


def train(model: nn.Module, splits: dict[str, torch.Tensor], config: TrainConfig) -> History:
    """Train `model` in place with AdamW; estimate and print the losses on the way (video 34:53, 38:00).

    `splits` has "train" and "val", 1-D tensors of token ids; `model(xb, yb)` returns logits and loss.
    Estimates before the step every `eval_interval` steps and before the last one; draws from torch's
    global generator in the order of the lecture's script. The progress bar goes to standard output.
    """
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate)
    history = History()
    for step in tqdm(range(config.max_iters), file=sys.stdout, leave=False, unit="step"):
        if step % config.eval_interval == 0 or step == config.max_iters - 1:
            losses = estimate_loss(model, splits, config)
            history.add(step, losses)
            tqdm.write(f"step {step:5}: train loss {losses['train']:.4f}, val loss {losses['val']:.4f}")
        xb, yb = get_batch(splits, "train", config.batch_size, config.block_size, device)  # (B, T), (B, T)
        _, loss = model(xb, yb)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return history


@torch.no_grad()
def sample_text(
    model: nn.Module, tokenizer: CharTokenizer, max_new_tokens: int, prompt: str = "\n", seed: int = 1337
) -> str:
    """The prompt and what `model.generate` appends to it, as text; seeds torch's generator first."""
    device, was_training = next(model.parameters()).device, model.training
    torch.manual_seed(seed)
    model.eval()
    idx = torch.tensor([tokenizer.encode(prompt)], device=device)  # (1, T)
    ids = model.generate(idx, max_new_tokens)[0]  # (T + max_new_tokens,)
    model.train(was_training)
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
