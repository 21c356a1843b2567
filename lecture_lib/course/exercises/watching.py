"""Which tensors a computation makes on its way, for checks that ask how an answer is computed."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Watched(TorchDispatchMode):
    """`with Watched() as seen:` notes in `seen.shapes` the shape of every tensor that an operation returns."""

    def __init__(self):
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        self.shapes |= {tuple(each.shape) for each in tree_leaves(result) if isinstance(each, torch.Tensor)}
        return result
