"""Training speed and the processor's peak.

From notebooks/13c_trainer.ipynb, section "4. How fast it is, and how fast it could be".
Video 1:46:22.
Written by `lecture promote`: edit the notebook, not this file.
"""

import timeit
from functools import cache

import torch
from torch import nn

__all__ = ["peak_flops", "training_flops"]


def training_flops(model: nn.Module) -> int:
    """Operations that training `model`, whose `config` tells its sizes, takes for each token."""
    sizes = model.config
    weights = sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Linear))
    return 6 * weights + 12 * sizes.n_layer * sizes.n_embd * sizes.block_size


@cache
def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second in the product of two large matrices, at this device's best."""
    size = 512 if device.type == "cpu" else 8192
    a = torch.linspace(-1, 1, size * size, device=device).view(size, size).to(dtype)
    seconds = timeit.repeat(lambda: (a @ a)[0, 0].item(), number=1, repeat=30)  # item() waits for a GPU
    return 2 * size**3 / min(seconds)
