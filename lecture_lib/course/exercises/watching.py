"""Which tensors a computation makes on its way, for checks that ask how an answer is computed."""

from collections.abc import Callable
from math import prod

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .asking import Wrong, ask


class Watched(TorchDispatchMode):
    """`with Watched() as seen:` counts torch's operations in `calls`, and notes the shapes of what they return."""

    def __init__(self):
        super().__init__()
        self.calls, self.shapes = 0, set()

    @property
    def largest(self) -> int:
        """How many numbers the largest of the tensors holds."""
        return max(map(prod, self.shapes), default=0)

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        self.calls += 1
        self.shapes |= {tuple(each.shape) for each in tree_leaves(result) if isinstance(each, torch.Tensor)}
        return result


def watched(answer: Callable, *arguments) -> Watched:
    """What a learner's function does with torch while it is asked."""
    with Watched() as seen:
        ask(answer, *arguments)
    return seen


def refuse_loop(few: Watched, many: Watched, more: str, so: str = "there is a loop still") -> None:
    """Wrong if `more` of something, as in `many`, took more calls of torch than in `few`."""
    if many.calls > few.calls:
        raise Wrong(f"The numbers are right, but {more} more calls of torch: {so}.")
