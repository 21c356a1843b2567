"""What a computation costs: the time it takes, and the memory it keeps for the backward pass."""

import math
import time
from collections.abc import Callable, Sequence

import torch


def shortest(jobs: dict[str, Callable], repeats: int) -> dict[str, float]:
    """Seconds of processor time that each job takes at its best, the jobs taken in turns."""
    best = dict.fromkeys(jobs, math.inf)
    for name in list(jobs) * repeats:
        began = time.process_time()
        jobs[name]()
        best[name] = min(best[name], time.process_time() - began)
    return best


def saved_bytes(run: Callable[[], object], parameters: Sequence[torch.Tensor] = ()) -> int:
    """Bytes of floating-point numbers that `run` keeps for the backward pass, without the parameters."""
    kept, alive = {}, list(parameters)  # alive: so that no later tensor gets the address of an earlier one

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        alive.append(tensor)
        if tensor.is_floating_point():
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()  # each storage once, however many views it has
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    own = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    return sum(size for address, size in kept.items() if address not in own)
