"""How many threads torch computes with: one for a small model, all cores for a large one.

An operation that is shared out among threads ends when the slowest of them ends. Those of a small model take
microseconds: on several cores they gain next to nothing, and each waits for whatever core another program
holds, a browser for instance. `make bench` measures what that costs. The user's own choice stands, whether by
OMP_NUM_THREADS or by `torch.set_num_threads`.
"""

import os
import sys
from types import ModuleType

VARIABLE = "OMP_NUM_THREADS"  # what torch reads when it's loaded
MARK = "LECTURE_THREADS"  # "course" if it was the course, not the user, that set VARIABLE
LARGE = 1_000_000  # parameters from which on all cores train a model clearly sooner (`make bench`)

_given = 1  # threads that the course last gave to torch


def fixed(threads: int) -> dict[str, str]:
    """Environment variables with which a process, and those that it starts, keep to so many threads."""
    return {VARIABLE: str(threads), MARK: ""}


def chosen_by_user() -> bool:
    """Whether the number of threads was set from outside."""
    return VARIABLE in os.environ and os.environ.get(MARK) != "course"


def begin_with_one() -> None:
    """Give torch one thread, whether it's loaded yet or not; done as soon as `lecture_lib` is imported."""
    if chosen_by_user():
        return
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    else:  # without loading it: a command that only prints its help shouldn't wait for torch
        os.environ |= {VARIABLE: "1", MARK: "course"}
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # a thread that waits leaves its core to others


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fit_threads(parameters: int) -> int:
    """Give torch the threads that suit a model of so many parameters; returns how many it has then."""
    global _given
    torch: ModuleType = sys.modules["torch"]
    if not chosen_by_user() and torch.get_num_threads() == _given:
        _given = cores() if parameters >= LARGE else 1
        torch.set_num_threads(_given)
    return torch.get_num_threads()
