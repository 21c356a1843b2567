"""The kit: what counts as a fault that is caught."""

import pytest
from kit import Suite, code_of, raises, suite_tests


def double(x):
    """2 * x, said here and in a comment, is no code."""
    return 2 * x  # 2 * x


numbers = Suite(double, ten=10)


@numbers.holds
def doubles(function, ten):
    assert function(ten) == 20


@numbers.holds
def is_never_asked_for(function):
    pass


numbers.faults = [
    ("trebled", "2 * x", "3 * x", doubles),
    ("cannot run", "2 * x", "None * x", raises(TypeError, doubles)),
]
held, caught = suite_tests(numbers)
test_a_planted_fault_is_caught = caught


def test_the_code_is_without_comments_and_docstrings():
    assert code_of(double) == 'def double(x):\n    ""\n    return 2 * x\n'


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (("2 * x", "x + x"), pytest.fail.Exception),  # no fault
        (("2 * x", "None * x"), TypeError),  # a crash is no catch
        (("x", "y"), AssertionError),  # stands in two places
    ],
)
def test_what_is_not_caught(fault, error):
    with pytest.raises(error):
        caught(numbers, fault, doubles, None)


def test_a_property_must_hold_and_have_a_fault():
    held(numbers, double, doubles, None)
    with pytest.raises(AssertionError, match="no planted fault shows that is_never_asked_for can fail"):
        held(numbers, double, is_never_asked_for, None)
    with pytest.raises(AssertionError):
        held(numbers, lambda x: x, doubles, None)
