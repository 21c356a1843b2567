"""What stands between an answer and the check written for it: nothing that is handed in may crash."""

import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from numbers import Real
from types import FunctionType

import torch

from lecture_lib.base.errors import CourseError
from lecture_lib.base.paths import LIBRARY

from ..chapters import find_chapter
from ..progress import remember
from .asking import Wrong, plain_number

SEED = 1337
NOT_ANSWERED = "not answered yet"


@dataclass(frozen=True)
class Exercise:
    """A check and what it may be given.

    `kind` is a type, as for `isinstance` (`Callable`, `Real`, `type` for a class), and `expects` says it in
    words. `judge` takes an answer of that kind, returns what a right one shows, and raises Wrong for others.
    """

    id: str
    kind: type
    expects: str
    seconds: float
    judge: Callable[[object], str]


EXERCISES: dict[str, Exercise] = {}  # of the chapters whose checks have been imported


def exercise(id: str, kind: type, expects: str, *, seconds: float = 20) -> Callable:
    """Register a function as the check of exercise `id`; an answer may keep it busy for so many seconds."""

    def register(judge: Callable[[object], str]) -> Callable[[object], str]:
        EXERCISES[id] = Exercise(id, kind, expects, seconds, judge)
        return judge

    return register


def find_exercise(id: str) -> Exercise:
    """The exercise with this id; CourseError lists what its chapter has."""
    chapter = find_chapter(str(id).partition(".")[0])
    import_module(f"{__package__}.{chapter.module}")
    if id not in EXERCISES:
        known = ", ".join(known for known in EXERCISES if known.startswith(f"{chapter.label}."))
        raise CourseError(f"no exercise {id!r}; chapter {chapter.label} has {known}")
    return EXERCISES[id]


def check(id: str, answer: object) -> None:
    """Print whether `answer` solves exercise `id`, such as "03.2", and why; remember it if it does.

    It's remembered only if a person runs the cell: see `progress.interactive`.
    """
    found = find_exercise(id)
    right, sentence = verdict(found, answer)
    print(f"{id}: {sentence}")
    remember(id, right)


def verdict(found: Exercise, answer: object) -> tuple[bool, str]:
    """Whether an answer is right, and the sentence for the learner; random generators stay as they were."""
    if is_stub(answer):
        return False, NOT_ANSWERED
    with own_randomness(), torch.enable_grad():
        try:
            with deadline(found.seconds):
                return True, f"right. {found.judge(of_kind(found, answer))}"
        except Wrong as wrong:
            said = str(wrong)
        except TooLong:
            said = f"your code was still running after {found.seconds:g} s; is there a loop that never ends?"
        except (Exception, SystemExit) as error:  # whatever a learner's code may do
            said = explained(error, found.expects)
    return False, f"not yet. {said}"


# ---------------------------------------------------------------- what was handed in


def is_stub(answer: object) -> bool:
    """Whether an answer, or a part of it, is still the `...` that the notebook has in its place."""
    if answer is ... or answer is None:
        return True
    if isinstance(answer, FunctionType):
        code = answer.__code__  # `return True` has the same instructions, and another constant
        return code.co_code in EMPTY and {*code.co_consts} <= {None, ..., answer.__doc__}
    if isinstance(answer, type):
        methods = [each for each in vars(answer).values() if isinstance(each, FunctionType)]
        return all(is_stub(method) for method in methods)
    if isinstance(answer, tuple | list):
        return any(part is ... or (isinstance(part, FunctionType) and is_stub(part)) for part in answer)
    return isinstance(answer, dict) and any(part is ... for part in answer.values())


def empty(): ...
def empty_but_documented(): ""  # fmt: skip


EMPTY = {function.__code__.co_code for function in (empty, empty_but_documented)}


def of_kind(found: Exercise, answer: object) -> object:
    """The answer, if it's of the kind that the exercise asks for; numbers as plain Python ones."""
    if found.kind is Real:
        answer = plain_number(answer)
    if not isinstance(answer, found.kind) or (found.kind is Callable and isinstance(answer, type)):
        raise Wrong(f"Expected {found.expects}; got {described(answer)}.")
    return answer


def described(answer: object) -> str:
    """A value in a few words."""
    if isinstance(answer, torch.Tensor):
        return f"a tensor of shape {tuple(answer.shape)}"
    if isinstance(answer, type):
        return f"the class {answer.__name__}"
    short = repr(answer)
    return f"a {type(answer).__name__}" + (f", {short}" if len(short) <= 40 else "")


def explained(error: BaseException, expects: str) -> str:
    """What went wrong, where in the learner's own code, and what was expected."""
    what = f"{type(error).__name__}: {error}".strip(": ").split("\n")[0]
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not is_ours(frame.filename)]
    if own:
        line = f' at "{own[-1].line}"' if own[-1].line else ""
        return f"Your code stopped in line {own[-1].lineno}{line} with {what}"
    return f"What came back can't be used ({what}). Expected {expects}."


def is_ours(filename: str) -> bool:
    """Whether a file belongs to the course, to Python, or to an installed package."""
    places = (str(LIBRARY), sys.prefix, sys.base_prefix, "<frozen")
    return filename.startswith(places)


# ---------------------------------------------------------------- surroundings


class TooLong(BaseException):  # no `except Exception` of a learner's may hold it up
    """An answer has used up its time."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise TooLong in the block after so many seconds, and each second from then on.

    Only a main thread on a system with timers can be stopped; elsewhere the block takes its time.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(*_):
        raise TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def own_randomness() -> Iterator[None]:
    """Seed the generators of torch and Python for the block, and put them back where they were."""
    python = random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        random.seed(SEED)
        try:
            yield
        finally:
            random.setstate(python)
