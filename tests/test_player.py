"""The player of chapters: that it notices what it's there for."""

import subprocess
import sys
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook
from player import Outcome

from lecture_lib.course.stored import save


@pytest.fixture
def play(player, tmp_path):
    def played(*sources, times=1, **parameters):
        cells = [new_code_cell("n: int = 1", metadata={"tags": ["parameters"]}), *map(new_code_cell, sources)]
        save(new_notebook(cells=cells), tmp_path / "notebook.ipynb")
        return player.play(tmp_path / "notebook.ipynb", parameters, times)

    return played


def test_a_run_to_the_end_has_nothing_to_tell(play):
    outcome = play("from lecture_lib.course.plots import use_style", "n + 1", "m = n", "assert m == 2", n=2)
    assert outcome == Outcome(outcome.seconds) and outcome.seconds > 0


def test_nothing_is_left_for_the_next_run(play):
    assert play("from pathlib import Path", "Path('here').touch(); import math; math.pi = 3").error == ""
    again = play("import math; from pathlib import Path", "assert math.pi > 3 and not Path('here').exists()")
    assert again.error == ""
    for _ in range(2):
        assert play("from lecture_lib.base.paths import OUT", "OUT.mkdir()").error == ""


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("a = 1\nassert n == 2, 'one'", "AssertionError: one, at: assert n == 2, 'one'"),
        ("class A:\n    def __repr__(self):\n        return 1 / 0\nA()", "ZeroDivisionError"),
        ("import matplotlib.pyplot as plt\nplt.title(r'$\\wrong{$')", "ValueError"),
        ("import sys\nsys.exit(0)", "SystemExit"),
    ],
)
def test_a_fault_is_told_with_its_cell(play, source, told):
    outcome = play("n", source)
    assert outcome.cell == 2 and not outcome.refused and told in outcome.error, outcome


def test_a_cell_that_cannot_be_repeated_is_found(play):
    sources = "stock = [n]", "stock.pop()"
    assert play(*sources).error == ""
    outcome = play(*sources, times=2)
    assert outcome.cell == 2 and outcome.error.startswith("IndexError")


def test_a_refusal_is_told_as_such(play):
    outcome = play("from lecture_lib.base.errors import CourseError\nraise CourseError('n is 1')")
    assert (outcome.cell, outcome.error, outcome.refused) == (1, "n is 1", True)


def test_a_run_that_is_killed_is_told(play):
    assert play("import os\nos.kill(os.getpid(), 9)") == Outcome(error="ended by SIGKILL")
    assert play("n").error == ""


def test_it_does_without_the_extras():
    """Who has set the course up for running and testing has neither the book's tools nor a browser."""
    extras = ("sphinx", "docutils", "myst_nb", "latex2mathml", "playwright")
    work = f"import sys; sys.modules |= dict.fromkeys({extras}); import player; player.warm_up()"
    done = subprocess.run(
        [sys.executable, "-c", work], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
