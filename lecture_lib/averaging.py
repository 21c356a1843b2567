"""Averaging the past: the trick in self-attention.

From notebooks/04_averaging.ipynb.
Video 42:13, 47:11, 51:54, 54:42.
Written by `lecture promote`: edit the notebook, not this file.
"""

import torch
from torch.nn import functional as F

__all__ = ["average_loops", "average_matmul", "average_softmax", "batch_time_channels"]


def batch_time_channels(x: torch.Tensor) -> tuple[int, int, int]:
    """The sizes `B, T, C` of `x`; ValueError unless it has three dimensions and a floating dtype."""
    if x.dim() != 3:
        raise ValueError(f"x has shape {tuple(x.shape)}; expected three dimensions, (B, T, C)")
    if not x.is_floating_point():
        raise ValueError(f"x has dtype {x.dtype}; expected a floating dtype, as averages are fractions")
    B, T, C = x.shape
    return B, T, C


def average_loops(x: torch.Tensor) -> torch.Tensor:
    """Version 1: mean of each position and its past, one position at a time (video 42:13).

    `x` and the result are (B, T, C), with out[b, t] = mean of x[b, : t + 1]; dtype and device are kept.
    Raises ValueError for another number of dimensions or an integer dtype.
    """
    B, T, _ = batch_time_channels(x)
    out = torch.zeros_like(x)  # (B, T, C)
    for b in range(B):
        for t in range(T):
            out[b, t] = x[b, : t + 1].mean(dim=0)  # (t + 1, C) -> (C,)
    return out


def average_matmul(x: torch.Tensor) -> torch.Tensor:
    """Version 2: mean of each position and its past, as one matrix product (video 51:54).

    `x` and the result are (B, T, C), with out[b, t] = mean of x[b, : t + 1]; dtype and device are kept.
    Raises ValueError for another number of dimensions or an integer dtype.
    """
    _, T, _ = batch_time_channels(x)
    wei = x.new_ones(T, T).tril()  # of x's dtype, on its device
    wei = wei / wei.sum(dim=1, keepdim=True)  # (T, T) / (T, 1)
    return wei @ x  # (T, T) @ (B, T, C) -> (B, T, C)


def average_softmax(x: torch.Tensor) -> torch.Tensor:
    """Version 3: mean of each position and its past, by a softmax over masked zeros (video 54:42).

    `x` and the result are (B, T, C), with out[b, t] = mean of x[b, : t + 1]; dtype and device are kept.
    Raises ValueError for another number of dimensions or an integer dtype.
    """
    _, T, _ = batch_time_channels(x)
    tril = x.new_ones(T, T).tril()  # of x's dtype, on its device
    wei = torch.zeros_like(tril).masked_fill(tril == 0, float("-inf"))  # (T, T)
    wei = F.softmax(wei, dim=-1)  # (T, T), each row on its own
    return wei @ x  # (T, T) @ (B, T, C) -> (B, T, C)
