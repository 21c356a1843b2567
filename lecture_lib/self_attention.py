"""Self-attention.

From notebooks/05_self_attention.ipynb, section "5. `attention` and `Head`".
Video 58:26, 1:00:18, 1:02:00.
Written by `lecture promote`: edit the notebook, not this file.

Vaswani et al. 2017: https://arxiv.org/abs/1706.03762
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["Head", "attention", "causal_mask", "check_shapes"]


def causal_mask(T: int) -> torch.Tensor:
    """The causal mask (T, T), boolean: in row t, True for 0 to t, the positions that t may attend to."""
    return torch.ones(T, T, dtype=torch.bool).tril()


def check_shapes(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> None:
    """Raise ValueError or TypeError, naming what was given and expected, if they don't fit together."""
    shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(f"{shapes}: expected q and k of the same head size, in the last dimension")
    if k.shape[-2] != v.shape[-2]:
        raise ValueError(f"{shapes}: expected as many values as keys, in the dimension before the last")
    try:
        batch = torch.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    except RuntimeError:
        raise ValueError(f"{shapes}: expected leading dimensions that broadcast together") from None
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise TypeError(f"mask has dtype {mask.dtype}; expected torch.bool, True = may attend to")
    expected = (*batch, q.shape[-2], k.shape[-2])
    try:
        mask.expand(expected)
    except RuntimeError:
        message = f"mask has shape {tuple(mask.shape)}; expected one that broadcasts to {expected}"
        raise ValueError(message) from None


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None = None,
    dropout: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Average the values, each query with weights of its own (video 1:02:00; Vaswani et al. 2017, eq. 1).

    q (..., T_q, hs), k (..., T_k, hs), v (..., T_k, hs_v); `mask`, boolean, broadcasts to (..., T_q, T_k),
    True = may attend to, at least one True for each query. Returns the output (..., T_q, hs_v) and the
    weights `wei` (..., T_q, T_k), whose rows sum to 1 until `dropout` is applied to them (video 1:37:49).
    The scores are scaled by 1/sqrt(hs).
    Raises ValueError for shapes that don't fit together, TypeError for a mask that is not boolean.
    """
    check_shapes(q, k, v, mask)
    wei = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5  # (..., T_q, hs) @ (..., hs, T_k) -> (..., T_q, T_k)
    if mask is not None:
        wei = wei.masked_fill(~mask, float("-inf"))
    wei = F.softmax(wei, dim=-1)  # over the keys
    if dropout is not None:
        wei = dropout(wei)
    return wei @ v, wei  # (..., T_q, T_k) @ (..., T_k, hs_v) -> (..., T_q, hs_v)


class Head(nn.Module):
    """One head of self-attention (video 1:02:00): every token averages values of itself and its past.

    `causal=False` makes it an encoder's head, in which all tokens see each other.
    """

    def __init__(self, n_embd: int, head_size: int, block_size: int, causal: bool = True):
        super().__init__()
        self.key = nn.Linear(n_embd, head_size, bias=False)
        self.query = nn.Linear(n_embd, head_size, bias=False)
        self.value = nn.Linear(n_embd, head_size, bias=False)
        self.causal = causal
        self.dropout = None
        self.register_buffer("tril", causal_mask(block_size), persistent=False)

    def attend(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T, n_embd) -> the output (B, T, head_size) and the attention weights (B, T, T).

        Raises ValueError unless x is (B, T, n_embd) with T <= block_size.
        """
        n_embd, block_size = self.key.in_features, len(self.tril)
        if x.dim() != 3 or x.shape[-1] != n_embd:
            raise ValueError(f"x has shape {tuple(x.shape)}; expected (B, T, n_embd) with n_embd = {n_embd}")
        T = x.shape[1]
        if block_size < T:
            raise ValueError(f"x has {T} tokens a row; expected at most block_size = {block_size}")
        mask = self.tril[:T, :T] if self.causal else None
        return attention(self.query(x), self.key(x), self.value(x), mask, self.dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, n_embd) -> (B, T, head_size)."""
        return self.attend(x)[0]
