"""The block, nine years on.

From notebooks/16b_modern_block.ipynb, section "1. Five changes to the block".
Video 1:56:20.
Written by `lecture promote`: edit the notebook, not this file.

Zhang and Sennrich 2019: https://arxiv.org/abs/1910.07467
Su et al. 2021: https://arxiv.org/abs/2104.09864
So et al. 2021: https://arxiv.org/abs/2109.08668
"""

import torch
from torch import nn
from torch.nn import functional as F

from lecture_lib.gpt import GPTConfig
from lecture_lib.nanogpt import split_heads

__all__ = ["ModernBlock", "RotaryAttention", "SquaredReLU", "rms_norm", "rotary_angles", "rotate_pairs"]


def rms_norm(x: torch.Tensor) -> torch.Tensor:
    """RMSNorm without a gain: each vector scaled to a mean square of 1, (..., C) -> (..., C)."""
    return F.rms_norm(x, (x.shape[-1],))  # Zhang and Sennrich 2019, equation 4


def rotary_angles(T: int, hs: int) -> torch.Tensor:
    """The angle by which pair i of a vector at position t is rotated, t / 10000 ** (2i / hs): (T, hs / 2)."""
    speeds = 10_000.0 ** (-torch.arange(0, hs, 2) / hs)  # (hs / 2,) radians a position: Su et al. 2021, 3.2.2
    return torch.arange(T)[:, None] * speeds  # (T, 1) * (hs / 2,)


def rotate_pairs(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Each pair (i, i + hs / 2) of vectors (..., T, hs) rotated by its angle, (T, hs / 2): (..., T, hs)."""
    a, b = x.chunk(2, dim=-1)  # (..., T, hs / 2) each
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class RotaryAttention(nn.Module):
    """All heads of causal attention in one product, with rotary positions, queries and keys normalised."""

    def __init__(self, config: GPTConfig, rotary: bool = True, qk_norm: bool = True):
        super().__init__()
        C, hs = config.n_embd, config.n_embd // config.n_head
        self.n_head, self.qk_norm = config.n_head, qk_norm
        self.qkv, self.proj = nn.Linear(C, 3 * C, bias=False), nn.Linear(C, C, bias=False)
        angles = rotary_angles(config.block_size, hs) if rotary else None
        self.register_buffer("angles", angles, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, n_embd) -> (B, T, n_embd), T at most block_size."""
        q, k, v = split_heads(self.qkv(x), self.n_head)  # (B, T, C) -> (B, n_head, T, hs) each
        if self.qk_norm:
            q, k = rms_norm(q), rms_norm(k)
        if self.angles is not None:
            q, k = (rotate_pairs(a, self.angles[: x.shape[1]]) for a in (q, k))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, n_head, T, hs)
        return self.proj(out.transpose(1, 2).flatten(2))  # (B, T, C) -> (B, T, C)


class SquaredReLU(nn.Module):
    """The square of ReLU (So et al. 2021), element by element."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape, kept."""
        return F.relu(x).square()


class ModernBlock(nn.Module):
    """Attention and feed-forward with what 2019 to 2021 brought, each of which can be left out."""

    def __init__(
        self,
        config: GPTConfig,
        rotary: bool = True,
        qk_norm: bool = True,
        squared_relu: bool = True,
        zero_start: bool = True,
    ):
        super().__init__()
        C = config.n_embd
        self.sa = RotaryAttention(config, rotary, qk_norm)
        curve = SquaredReLU() if squared_relu else nn.ReLU()
        self.ffwd = nn.Sequential(nn.Linear(C, 4 * C, bias=False), curve, nn.Linear(4 * C, C, bias=False))
        self.dropout = nn.Dropout(config.dropout)
        if zero_start:
            nn.init.zeros_(self.sa.proj.weight)
            nn.init.zeros_(self.ffwd[2].weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, n_embd) -> (B, T, n_embd)."""
        x = x + self.dropout(self.sa(rms_norm(x)))  # (B, T, C) + (B, T, C)
        return x + self.dropout(self.ffwd(rms_norm(x)))
