"""Weights laid out for one token at a time.

From notebooks/13b_generation.ipynb, section "3. What limits it".
Video 1:46:22.
Written by `lecture promote`: edit the notebook, not this file.
"""

import copy
import math

import torch
from torch import nn

from lecture_lib.nanogpt import NanoGPT

__all__ = ["SplitLinear", "for_writing"]


class SplitLinear(nn.Module):
    """What `layer` computes, from weights stored in pieces, one for each core; for inference.

    `weight` is (pieces, n_rows, n_out), in `dtype` (default: the layer's); `pieces` must divide n_in.
    """

    def __init__(self, layer: nn.Linear, pieces: int, dtype: torch.dtype | None = None):
        super().__init__()
        rows = layer.weight.detach().t().contiguous().to(dtype)  # (n_out, n_in) -> (n_in, n_out)
        self.register_buffer("weight", rows.view(pieces, -1, layer.out_features))  # (pieces, n_rows, n_out)
        self.bias = layer.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, n_in) -> (B, T, n_out), in the dtype of x."""
        pieces, n_rows, n_out = self.weight.shape
        cut = x.reshape(-1, pieces, n_rows).transpose(0, 1)  # (B, T, n_in) -> (pieces, B*T, n_rows)
        parts = torch.bmm(cut.to(self.weight.dtype), self.weight)  # -> (pieces, B*T, n_out)
        y = parts.sum(0, dtype=x.dtype).view(*x.shape[:-1], n_out)  # -> (B, T, n_out)
        return y if self.bias is None else y + self.bias


def for_writing(model: NanoGPT, dtype: torch.dtype | None = None) -> NanoGPT:
    """A copy of `model`, in eval mode, that writes sooner on a CPU: its blocks' linear layers are split.

    In as many pieces as torch has threads, where their number divides the inputs'. With `dtype`
    torch.bfloat16 their weights are rounded to half the bytes.
    """
    twin = copy.deepcopy(model).eval()
    for parent in list(twin.body.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear):
                pieces = math.gcd(layer.in_features, torch.get_num_threads())
                setattr(parent, name, SplitLinear(layer, pieces, dtype))
    return twin
