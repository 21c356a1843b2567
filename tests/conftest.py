"""Fixtures for tests of the machinery."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from nbformat.v4 import new_output
from player import Player
from small_course import Course, notebook

from lecture_lib.course.stored import save

pytest.register_assert_rewrite("faults", "kit")  # so that its tests say what differs


@pytest.fixture(autouse=True)
def as_many_threads_as_before() -> Iterator[None]:
    """A command chooses torch's threads for its process, but in this one other tests come after it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def course(tmp_path: Path) -> Course:
    return Course(tmp_path)


@pytest.fixture
def executed(tmp_path: Path) -> Path:
    """A stored notebook as it should be: the first cell prints, the second shows a value."""
    stored = notebook(["# 07. Stored", "print('hello')", "1 + 1"])
    stored.cells[1].outputs = [new_output("stream", name="stdout", text="hello\n")]
    stored.cells[2].outputs = [new_output("execute_result", data={"text/plain": "2"}, execution_count=2)]
    path = tmp_path / "07_stored.ipynb"
    save(stored, path)
    return path


@pytest.fixture(scope="module")
def player() -> Iterator[Player]:
    """The process that plays chapters."""
    with Player() as process:
        yield process
