"""Residual connections.

From notebooks/09_residual.ipynb.
Video 1:26:48.
Written by `lecture promote`: edit the notebook, not this file.

He et al. 2015: https://arxiv.org/abs/1512.03385
Vaswani et al. 2017: https://arxiv.org/abs/1706.03762
"""

from collections.abc import Callable

import torch
from torch import nn

from lecture_lib.generation import AutoregressiveModel
from lecture_lib.multi_head import MultiHeadAttention
from lecture_lib.self_attention import Head

__all__ = ["ProjectedAttention", "ResidualBlock", "ResidualModel", "WideFeedForward"]


class ResidualBlock(nn.Module):
    """Communication, then computation, each added to the residual stream it reads from (video 1:26:48).

    `sa` and `ffwd` map (B, T, n_embd) to (B, T, n_embd). He et al. 2015.
    """

    def __init__(self, sa: nn.Module, ffwd: nn.Module):
        super().__init__()
        self.sa, self.ffwd = sa, ffwd

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, n_embd) -> (B, T, n_embd)."""
        x = x + self.sa(x)  # (B, T, C) + (B, T, C)
        return x + self.ffwd(x)


class ProjectedAttention(MultiHeadAttention):
    """Multi-head attention whose concatenated heads are mixed by a linear layer (video 1:26:48).

    The projection back into the residual stream; with it, this is section 3.2.2 of Vaswani et al. 2017.
    """

    def __init__(self, n_embd: int, n_head: int, block_size: int, make_head: Callable[..., nn.Module] = Head):
        super().__init__(n_embd, n_head, block_size, make_head)
        self.proj = nn.Linear(n_embd, n_embd)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, n_embd) -> (B, T, n_embd)."""
        return self.proj(super().forward(x))  # (B, T, C) -> (B, T, C)


class WideFeedForward(nn.Module):
    """For each token on its own: 4 times as many hidden channels, a ReLU, and back (video 1:26:48).

    Equation 2 of Vaswani et al. 2017. Chapter 13 chooses another activation, or layers without bias.
    """

    def __init__(self, n_embd: int, activation: Callable[[], nn.Module] = nn.ReLU, bias: bool = True):
        super().__init__()
        widen, narrow = nn.Linear(n_embd, 4 * n_embd, bias), nn.Linear(4 * n_embd, n_embd, bias)
        self.net = nn.Sequential(widen, activation(), narrow)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, n_embd) -> (B, T, n_embd)."""
        return self.net(x)


class ResidualModel(AutoregressiveModel):
    """`n_layer` residual blocks, one after the other (video 1:26:48)."""

    def __init__(self, vocab_size: int, block_size: int, n_embd: int, n_head: int, n_layer: int):
        def make_block() -> nn.Module:
            return ResidualBlock(ProjectedAttention(n_embd, n_head, block_size), WideFeedForward(n_embd))

        def make_body() -> nn.Module:
            return nn.Sequential(*(make_block() for _ in range(n_layer)))

        super().__init__(vocab_size, block_size, n_embd, make_body)
