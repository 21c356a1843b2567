"""Multi-head attention.

From notebooks/07_multi_head.ipynb.
Video 1:21:59.
Written by `lecture promote`: edit the notebook, not this file.

Vaswani et al. 2017: https://arxiv.org/abs/1706.03762
"""

from collections.abc import Callable

import torch
from torch import nn

from lecture_lib.generation import AutoregressiveModel
from lecture_lib.self_attention import Head

__all__ = ["MultiHeadAttention", "MultiHeadModel"]


class MultiHeadAttention(nn.Module):
    """Several heads side by side, their outputs concatenated (video 1:21:59; Vaswani et al. 2017, 3.2.2).

    Each of the `n_head` heads is `make_head(n_embd, head_size, block_size)` with head_size = n_embd / n_head.
    Raises ValueError unless n_head divides n_embd.
    """

    def __init__(self, n_embd: int, n_head: int, block_size: int, make_head: Callable[..., nn.Module] = Head):
        super().__init__()
        if n_head < 1 or n_embd % n_head:
            raise ValueError(f"n_embd is {n_embd}, n_head is {n_head}; expected n_head to divide n_embd")
        head_size = n_embd // n_head
        self.heads = nn.ModuleList(make_head(n_embd, head_size, block_size) for _ in range(n_head))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, n_embd) -> (B, T, n_embd): n_head outputs of head_size channels, one after the other."""
        return torch.cat([head(x) for head in self.heads], dim=-1)  # n_head times (B, T, hs) -> (B, T, C)


class MultiHeadModel(AutoregressiveModel):
    """Several small heads in place of the large one (video 1:21:59)."""

    def __init__(self, vocab_size: int, block_size: int, n_embd: int, n_head: int):
        def make_body() -> nn.Module:
            return MultiHeadAttention(n_embd, n_head, block_size)

        super().__init__(vocab_size, block_size, n_embd, make_body)
