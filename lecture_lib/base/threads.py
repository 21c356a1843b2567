"""How many threads torch computes with: one for a small model, all cores for a large one.

An operation that is shared out among threads ends when the slowest of them ends. Those of a small model take
microseconds: on several cores they gain next to nothing, and each waits for whatever core another program
holds, a browser for instance. `make bench` measures what that costs. The user's own choice stands, whether by
OMP_NUM_THREADS or by `torch.set_num_threads`.
"""

import os
import sys
import time
from collections.abc import Callable

VARIABLE = "OMP_NUM_THREADS"  # what torch reads when it's loaded
MARK = "LECTURE_THREADS"  # "course" if it was the course, not the user, that set VARIABLE
SPIN = {"GOMP_SPINCOUNT": "100000"}  # a few milliseconds: longer than torch works alone between two products
LARGE = 1_000_000  # parameters from which on all cores train a model clearly sooner (`make bench`)

_given = 1  # threads that the course last gave to torch


def fixed(threads: int) -> dict[str, str]:
    """Environment variables that keep a process, and those that it starts, to that many threads."""
    return {VARIABLE: str(threads), MARK: ""}


def chosen_by_user() -> bool:
    """Whether the user set the number of threads."""
    return VARIABLE in os.environ and os.environ.get(MARK) != "course"


def begin_with_one() -> None:
    """Give torch one thread, whether or not it's loaded yet; called when `lecture_lib` is imported."""
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


def left_to_course() -> bool:
    """Whether the course may choose the number of threads: torch still has what the course last gave it."""
    return not chosen_by_user() and sys.modules["torch"].get_num_threads() == _given


def give(threads: int) -> None:
    """Give torch that many threads, and remember the number as the course's choice."""
    global _given
    _given = threads
    sys.modules["torch"].set_num_threads(threads)


def fit_threads(parameters: int) -> int:
    """Give torch as many threads as suit a model with that many parameters; return how many it has then."""
    if left_to_course():
        give(cores() if parameters >= LARGE else 1)
    return sys.modules["torch"].get_num_threads()


def wait_awake() -> None:
    """Keep torch's waiting threads awake for a moment, which speeds up many short products in a row.

    Writing text is an example: there, waking a thread takes as long as its share of the work. For a process
    that hasn't loaded torch yet; the user's choice stands.
    """
    os.environ |= {name: value for name, value in SPIN.items() if name not in os.environ}


def quickest_threads(work: Callable[[], object], rounds: int = 3) -> int:
    """Give torch one thread or all cores, whichever does `work` faster at this moment; return how many.

    Where other programs keep the cores busy, one thread is faster even for a large model's short steps.
    The two take turns, `rounds` each after one that isn't counted; the smaller total wins.
    """
    if left_to_course():
        seconds = dict.fromkeys((1, cores()), 0.0)
        for turn in range(rounds + 1):
            for number in seconds:
                give(number)
                began = time.perf_counter()
                work()
                seconds[number] += (time.perf_counter() - began) * (turn > 0)
        give(min(seconds, key=seconds.get))
    return sys.modules["torch"].get_num_threads()
