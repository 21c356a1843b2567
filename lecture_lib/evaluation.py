"""Score a model on a whole split.

From notebooks/13b_generation.ipynb, section "4. A score without noise".
Video 1:46:22.
Written by `lecture promote`: edit the notebook, not this file.
"""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F

from lecture_lib.training import eval_mode

__all__ = ["consecutive_blocks", "split_loss", "strided_loss"]


def consecutive_blocks(ids: torch.Tensor, block_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Inputs and targets (B, T) that score every id but the first once, at most 32 rows at a time."""
    xs, ys = ids[:-1].split(block_size), ids[1:].split(block_size)  # blocks of (T,), the last may be shorter
    whole = (len(ids) - 1) // block_size
    for i in range(0, whole, 32):
        rows = slice(i, min(i + 32, whole))
        yield torch.stack(xs[rows]), torch.stack(ys[rows])  # (B, T) each
    if whole < len(xs):
        yield xs[-1][None], ys[-1][None]  # (1, what is left) each


@torch.no_grad()
def split_loss(model: nn.Module, ids: torch.Tensor) -> float:
    """The loss in nats per token over all of `ids`, (N,), in consecutive blocks of the model's block_size."""
    device, total = next(model.parameters()).device, 0.0
    with eval_mode(model):
        for xb, yb in consecutive_blocks(ids.to(device), model.block_size):
            total += model(xb, yb)[1].item() * yb.numel()
    return total / (len(ids) - 1)


@torch.no_grad()
def strided_loss(model: nn.Module, ids: torch.Tensor, stride: int) -> float:
    """The loss over `ids`, (N,), in windows of block_size that overlap: of each only the new tokens count.

    In nats per token. Each window ends `stride` tokens after the one before.
    Raises ValueError unless 1 <= stride <= block_size.
    """
    size, total, done = model.block_size, 0.0, 0
    if not 1 <= stride <= size:
        raise ValueError(f"stride is {stride}; expected 1 to block_size = {size}")
    ids = ids.to(next(model.parameters()).device)
    with eval_mode(model):
        for end in [*range(size, len(ids) - 1, stride), len(ids) - 1]:
            logits, _ = model(ids[None, max(0, end - size) : end])  # (1, T) -> (1, T, vocab_size)
            total += F.cross_entropy(logits[0, done - end :], ids[done + 1 : end + 1], reduction="sum").item()
            done = end
    return total / done
