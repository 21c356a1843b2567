"""A score without noise.

Video 1:56:20.
Promoted from notebooks/16_counts.ipynb by `lecture promote`: edit the notebook, not this file.
"""

from collections.abc import Iterator

import torch
from torch import nn

from lecture_lib.base.corpus import play_spans
from lecture_lib.batches import draw_places
from lecture_lib.training import eval_mode

__all__ = ["blocks", "dev_start", "draw_with_parts", "play_parts", "split_loss"]


def blocks(ids: torch.Tensor, block_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
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
    total = 0.0
    with eval_mode(model):
        for xb, yb in blocks(ids, model.block_size):
            total += model(xb, yb)[1].item() * yb.numel()
    return total / (len(ids) - 1)


def dev_start(text: str, n_train: int) -> int:
    """Where to cut the training split, the first `n_train` characters: as far into a play as `val` begins."""
    plays = play_spans(text)
    known = n_train - plays["The Taming of the Shrew"].start  # characters
    return plays["Measure for Measure"].start + known


def play_parts(text: str) -> torch.Tensor:
    """The part of each character of the corpus, (N,): 2 i the first third of play i, 2 i + 1 the rest."""
    parts = torch.empty(len(text), dtype=torch.int64)
    for i, play in enumerate(play_spans(text).values()):
        third = play.start + (play.stop - play.start) // 3
        parts[play.start : third], parts[third : play.stop] = 2 * i, 2 * i + 1
    return parts


def draw_with_parts(
    text: torch.Tensor, parts: torch.Tensor, batch_size: int, block_size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random chunks of a text and its parts, (N,) each: inputs, targets, the targets' parts, (B, T) each."""
    places = draw_places(len(text), batch_size, block_size)  # (B, T)
    return text[places], text[places + 1], parts[places + 1]
