"""What checks are written with: calls that can't harm, comparisons that say what was expected for what."""

import copy
from collections.abc import Callable, Mapping
from numbers import Real

import torch

Expected = torch.Tensor | float
CHANGED = "Your function changes its argument in place, and the caller still needs it; copy it first."


class Wrong(Exception):
    """An answer isn't right; the message says why, in a sentence for the learner."""


def ask(answer: Callable, *arguments, **named):
    """What the learner's function returns for copies of the arguments; Wrong if it changes one of them."""
    given, given_named = copy.deepcopy((arguments, named))
    result = answer(*given, **given_named)
    for before, after in zip([*arguments, *named.values()], [*given, *given_named.values()], strict=True):
        if isinstance(before, torch.Tensor) and not torch.equal(before.nan_to_num(), after.nan_to_num()):
            raise Wrong(CHANGED)
        if isinstance(before, list | dict | set) and before != after:
            raise Wrong(f"{CHANGED} {before} became {after}.")
    return result


def single(value: object) -> object:
    """The one element of a tensor or array as a plain value; anything else as it is."""
    if hasattr(value, "item") and getattr(value, "size", None) is not None:
        elements = value.numel() if isinstance(value, torch.Tensor) else value.size
        return value.item() if elements == 1 else value
    return value


def plain_number(value: object) -> object:
    """A tensor or array of one element as a plain number, anything else as it is; True is no number.

    Wrong for NaN and infinity.
    """
    value = single(value)
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and not abs(value) < float("inf"):
        raise Wrong(f"{value} isn't a finite number; where does it come from?")
    return value


def number(value: object, what: str) -> float:
    """`value` as a finite number; Wrong, naming `what`, if it isn't one."""
    value = plain_number(value)
    if not isinstance(value, Real):
        raise Wrong(f"{what}: expected a number, got {value!r}.")
    return value


def several(value: object, count: int, otherwise: str) -> tuple | list:
    """`value` as a tuple or list of `count` parts; Wrong, with the sentence `otherwise`, if it isn't one."""
    if not isinstance(value, tuple | list) or len(value) != count:
        raise Wrong(otherwise)
    return value


def truth(value: object) -> bool:
    """`value`, or its one element, as True or False; Wrong if it's neither."""
    value = single(value)
    if not isinstance(value, bool):
        raise Wrong(f"Expected True or False; your function returned {value!r}.")
    return value


def subclass(answer: type, base: type) -> type:
    """The learner's class; Wrong if it isn't made from `base`."""
    if not issubclass(answer, base):
        raise Wrong(f"Expected a class that begins with `class {answer.__name__}({base.__name__}):`.")
    return answer


def tensor(value: object, shape: tuple[int, ...], what: str) -> torch.Tensor:
    """`value` as a tensor of this shape without NaN; Wrong, naming `what`, if it isn't one."""
    if not isinstance(value, torch.Tensor):
        raise Wrong(f"{what}: expected a tensor of shape {shape}, got {type(value).__name__}.")
    if tuple(value.shape) != shape:
        raise Wrong(f"{what}: expected shape {shape}, got {tuple(value.shape)}.")
    if value.isnan().any():
        raise Wrong(f"{what}: there is a NaN at {first_place(value.isnan())}.")
    return value


def expect(
    value: object,
    expected: Expected,
    what: str,
    slips: Mapping[str, Expected] | None = None,
    *,
    atol: float = 1e-5,
) -> None:
    """Wrong unless `value` is `expected`, a tensor or a number, within `atol`.

    `slips` gives the sentence for each known mistake, and what it leads to instead; a value that is one of
    these gets its sentence. Any other gets the first place where it differs.
    """
    if alike(value, expected, atol):
        return
    for sentence, wrong in (slips or {}).items():
        if alike(value, wrong, atol):
            raise Wrong(sentence)
    if isinstance(expected, torch.Tensor):
        value = tensor(value, tuple(expected.shape), what)
    else:
        value = number(value, what)
    raise Wrong(f"{what}: {difference(value, expected, atol)}.")


def alike(value: object, other: Expected, atol: float) -> bool:
    """Whether a value is another one within `atol`: a tensor of its shape, or a number."""
    if isinstance(other, torch.Tensor):
        return isinstance(value, torch.Tensor) and same(value, other, atol)
    value = plain_number(value)
    return isinstance(value, Real) and abs(value - other) <= atol


def same(value: torch.Tensor, other: torch.Tensor, atol: float) -> bool:
    """Whether two tensors have one shape and entries that are equal within `atol`, infinities too."""
    return value.shape == other.shape and torch.allclose(value.double(), other.double(), rtol=0, atol=atol)


def difference(value: Expected, expected: Expected, atol: float) -> str:
    """The first place where a value isn't as expected."""
    if not isinstance(expected, torch.Tensor):
        return f"expected {expected:.6g}, got {value:.6g}"
    apart = ~torch.isclose(value.double(), expected.double(), rtol=0, atol=atol)
    place = first_place(apart)
    return f"at {place}, expected {expected[place].item():.6g}, got {value[place].item():.6g}"


def first_place(mask: torch.Tensor) -> tuple[int, ...]:
    """The index of the first True."""
    return tuple(mask.nonzero()[0].tolist())
