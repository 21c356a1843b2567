"""Layer norm.

From notebooks/10_layer_norm.ipynb.
Video 1:32:51.
Written by `lecture promote`: edit the notebook, not this file.

Ba et al. 2016: https://arxiv.org/abs/1607.06450
Vaswani et al. 2017: https://arxiv.org/abs/1706.03762
Xiong et al. 2020: https://arxiv.org/abs/2002.04745
"""

import torch
from torch import nn

from lecture_lib.generation import AutoregressiveModel
from lecture_lib.residual import ProjectedAttention, ResidualBlock, WideFeedForward

__all__ = ["Block", "LayerNorm", "LayerNormModel"]


class LayerNorm(nn.Module):
    """Normalise each token on its own, over its channels; then a learned gain and shift (video 1:32:51).

    Ba et al. 2016, equation 4; equal to `torch.nn.LayerNorm`, which the models use for its speed.
    """

    def __init__(self, n_embd: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.ones(n_embd))
        self.beta = nn.Parameter(torch.zeros(n_embd))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., n_embd) -> (..., n_embd): mean 0, variance 1 in each vector, before gain and shift."""
        mean = x.mean(dim=-1, keepdim=True)  # (..., C) -> (..., 1)
        var = x.var(dim=-1, keepdim=True, unbiased=False)  # (..., C) -> (..., 1)
        return self.gamma * (x - mean) / torch.sqrt(var + self.eps) + self.beta  # (C,) * (..., C) + (C,)


class Block(ResidualBlock):
    """A Transformer block: communication, then computation, each on a normalised copy of the stream.

    The norms come before `sa` and `ffwd`, not after the sum as in Vaswani et al. 2017 (video 1:32:51;
    Xiong et al. 2020), so that the stream itself stays untouched from the first block to the last.
    `bias=False` makes norms without a shift, for chapter 13.
    """

    def __init__(self, n_embd: int, sa: nn.Module, ffwd: nn.Module, bias: bool = True):
        super().__init__(sa, ffwd)
        self.ln1, self.ln2 = nn.LayerNorm(n_embd, bias=bias), nn.LayerNorm(n_embd, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, n_embd) -> (B, T, n_embd)."""
        x = x + self.sa(self.ln1(x))  # (B, T, C) + (B, T, C)
        return x + self.ffwd(self.ln2(x))


class LayerNormModel(AutoregressiveModel):
    """`n_layer` blocks with norms, and one more norm before the logits (video 1:32:51)."""

    def __init__(self, vocab_size: int, block_size: int, n_embd: int, n_head: int, n_layer: int):
        def make_block() -> nn.Module:
            return Block(n_embd, ProjectedAttention(n_embd, n_head, block_size), WideFeedForward(n_embd))

        def make_body() -> nn.Module:
            return nn.Sequential(*(make_block() for _ in range(n_layer)), nn.LayerNorm(n_embd))

        super().__init__(vocab_size, block_size, n_embd, make_body)
