"""Planted faults: a copy of a module with one place of its source changed, and the properties that notice."""

import inspect
from collections.abc import Callable
from types import ModuleType

import pytest
import torch


def planted(library: ModuleType, old: str, new: str) -> ModuleType:
    """A copy of the module with one place of its source changed."""
    source = inspect.getsource(library)
    assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in the source, expected once"
    copy = ModuleType("planted")
    exec(source.replace(old, new), vars(copy))
    return copy


def failed(library: ModuleType, properties: list, **sizes: object) -> set:
    """The properties that fail: by an assertion, or because torch or the library refuses."""
    failures = set()
    for holds in properties:
        try:
            holds(library, **sizes)
        except (AssertionError, RuntimeError, ValueError, IndexError):
            failures.add(holds)
    return failures


def property_test(properties: dict[ModuleType, list]) -> Callable:
    """The test of a file of properties, module -> what holds for it, each begun from the same seed."""

    @pytest.mark.parametrize(
        ("library", "holds"), [(library, holds) for library, table in properties.items() for holds in table]
    )
    def test_properties(library, holds):
        torch.manual_seed(0)
        holds(library)

    return test_properties


def fault_tests(
    tables: dict[ModuleType, tuple[list, list[tuple[str, str, str, set]]]], **sizes: object
) -> tuple[Callable, Callable]:
    """The two tests of a file of tables: module -> its properties, and the faults to plant in it.

    A fault is what it's called, the old place, the new one, and the properties that notice it: exactly those
    must fail. And every property must be there for some fault.
    """
    rows = [
        pytest.param(library, properties, *fault, id=name)
        for library, (properties, faults) in tables.items()
        for name, *fault in faults
    ]

    @pytest.mark.parametrize(("library", "properties", "old", "new", "noticed_by"), rows)
    def test_a_planted_fault_is_caught(library, properties, old, new, noticed_by):
        assert failed(planted(library, old, new), properties, **sizes) == noticed_by

    def test_every_property_catches_a_fault():
        for properties, faults in tables.values():
            assert set().union(*(noticed_by for *_, noticed_by in faults)) == set(properties)

    return test_a_planted_fault_is_caught, test_every_property_catches_a_fault
