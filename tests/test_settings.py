"""A chapter's parameters: in their range, or refused by name; and whether they are the stored ones."""

import math
import subprocess
import sys

import pytest

from lecture_lib.base.errors import CourseError
from lecture_lib.base.paths import NOTEBOOKS
from lecture_lib.course.chapters import Chapter
from lecture_lib.course.settings import check_settings

STEM = "07_multi_head"
STORED = Chapter(NOTEBOOKS / f"{STEM}.ipynb").defaults


def test_stored_settings_are_known_among_other_names():
    assert check_settings(STEM, {**STORED, "other": object()})


@pytest.mark.parametrize("changed", [{"seed": 1}, {"learning_rate": 2e-3}, {"n_head": 8}])
def test_one_other_value_is_noticed(changed):
    assert not check_settings(STEM, STORED | changed)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("block_size", 0),
        ("max_iters", 0),
        ("seed", -1),
        ("learning_rate", 0.0),
        ("learning_rate", 1e9),
        ("learning_rate", math.nan),
    ],
)
def test_outside_its_range_a_value_is_refused_with_the_range(name, value):
    with pytest.raises(CourseError, match=rf"^{name}=.*: expected a value from .* to "):
        check_settings(STEM, STORED | {name: value})


def test_heads_that_do_not_divide_the_channels_are_refused_with_those_that_do():
    with pytest.raises(CourseError, match=r"n_head=3 doesn't divide n_embd=32; .* 1, 2, 4, 8, 16, 32$"):
        check_settings(STEM, STORED | {"n_head": 3})


def test_a_chapter_may_narrow_a_range():
    with pytest.raises(CourseError, match="block_size=1: expected a value from 3 to 64"):
        check_settings(STEM, STORED | {"block_size": 1}, block_size=(3, 64))


def test_a_chapter_that_checks_its_parameters_waits_for_no_nbformat():
    """Importing it takes more than a second, at the beginning of each chapter."""
    check = f"check_settings({STEM!r}, {STORED!r})"
    imports = "import sys; from lecture_lib.course.settings import check_settings"
    command = [sys.executable, "-c", f"{imports}; print({check}, 'nbformat' in sys.modules)"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True False\n"
