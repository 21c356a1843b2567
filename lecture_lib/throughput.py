"""How fast it is, and how fast it could be.

Video 1:46:22.
Promoted from notebooks/13_nanogpt.ipynb by `lecture promote`: edit the notebook, not this file.
"""

from functools import cache

import torch
from torch import nn
from torch.utils.benchmark import Timer

__all__ = ["flops_per_token", "peak_flops"]


def flops_per_token(model: nn.Module) -> int:
    """Floating-point operations that training `model` takes for each token, forward and backward.

    6 for each weight of a linear layer, and 12 * n_layer * n_embd * block_size for the attention's two
    products (Chowdhery et al. 2022, appendix B). `model.config` has these three sizes.
    """
    weights = sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Linear))
    config = model.config
    return 6 * weights + 12 * config.n_layer * config.n_embd * config.block_size


@cache
def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second that this device reaches in the product of two large matrices."""
    size = 512 if device.type == "cpu" else 8192
    a = torch.linspace(-1, 1, size * size, device=device).view(size, size).to(dtype)
    timer = Timer("a @ a", globals={"a": a}, num_threads=torch.get_num_threads())
    return 2 * size**3 / timer.blocked_autorange(min_run_time=0.2).median
