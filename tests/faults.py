"""Planted faults: a copy of a module with one place of its source changed, and the properties that notice."""

import inspect
from types import ModuleType


def planted(library: ModuleType, old: str, new: str) -> ModuleType:
    """A copy of the module with one place of its source changed."""
    source = inspect.getsource(library)
    assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in the source, expected once"
    copy = ModuleType("planted")
    exec(source.replace(old, new), vars(copy))
    return copy


def failed(library: ModuleType, properties: list, **sizes: int) -> set:
    """The properties that fail: by an assertion, or because torch or the library refuses."""
    failures = set()
    for holds in properties:
        try:
            holds(library, **sizes)
        except (AssertionError, RuntimeError, ValueError, IndexError):
            failures.add(holds)
    return failures
