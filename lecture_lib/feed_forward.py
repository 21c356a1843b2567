"""Feed-forward.

From notebooks/08_feed_forward.ipynb.
Video 1:24:25.
Written by `lecture promote`: edit the notebook, not this file.
"""

import torch
from torch import nn

from lecture_lib.generation import AutoregressiveModel
from lecture_lib.multi_head import MultiHeadAttention

__all__ = ["FeedForward", "FeedForwardModel"]


class FeedForward(nn.Module):
    """A linear layer and a ReLU, for each token on its own (video 1:24:25)."""

    def __init__(self, n_embd: int):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(n_embd, n_embd), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, n_embd) -> (B, T, n_embd)."""
        return self.net(x)


class FeedForwardModel(AutoregressiveModel):
    """First the tokens look at each other, then each thinks about what it saw (video 1:24:25)."""

    def __init__(self, vocab_size: int, block_size: int, n_embd: int, n_head: int):
        def make_body() -> nn.Module:
            return nn.Sequential(MultiHeadAttention(n_embd, n_head, block_size), FeedForward(n_embd))

        super().__init__(vocab_size, block_size, n_embd, make_body)
