"""A small text for tests of what learns from one."""

import torch

V = 5


def some_text(n: int = 400, seed: int = 0) -> torch.Tensor:
    """Ids of a text in which contexts come again: a walk that mostly goes on by 1."""
    generator = torch.Generator().manual_seed(seed)
    steps = (torch.rand(n, generator=generator) < 0.3).long() + 1
    return steps.cumsum(0) % V
