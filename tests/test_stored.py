"""Stored notebooks: normalising, what nbval cannot see and what it does see, each with a planted fault."""

import re
import subprocess
import sys

import nbformat
import pytest
from conftest import notebook
from nbformat.v4 import new_output

from lecture_lib.base.errors import CourseError
from lecture_lib.course.chapters import Chapter, all_chapters, read_notebook
from lecture_lib.course.stored import MAX_BYTES, anatomy, as_on_screen, normalised, problems, refresh, save


def edit(path, change):
    """Apply `change` to the notebook's code cells and store it as it then is."""
    stored = read_notebook(path)
    change([cell for cell in stored.cells if cell.cell_type == "code"])
    nbformat.write(stored, path)


def nbval(path) -> str:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--nbval",
        "--nbval-current-env",
        "-p",
        "no:cacheprovider",
    ]
    return subprocess.run([*command, str(path)], capture_output=True, text=True).stdout


def set_output(cells):
    cells[0].outputs[0].text = "goodbye\n"


def drop_count(cells):
    cells[1].execution_count = None


def swap_counts(cells):
    cells[0].execution_count, cells[1].execution_count = 2, 1


def skip(cells):
    cells[1].metadata["tags"] = ["nbval-skip"]


def skip_by_comment(cells):
    cells[1].source = "# NBVAL_SKIP\n1 + 1"


def add_timing(cells):
    cells[0].metadata["execution"] = {"iopub.execute_input": "2026-01-01T00:00:00Z"}


def ignore_without_assertion(cells):
    cells[0].metadata["tags"] = ["nbval-ignore-output"]


def add_stderr(cells):
    cells[0].outputs.append(new_output("stream", name="stderr", text="a warning\n"))


def add_svg(cells):
    cells[1].outputs[0].data["image/svg+xml"] = "<svg/>"


def hide_value(cells):
    cells[1].source = "1 + 1;"


def expect_error(cells):
    cells[1].metadata["tags"] = ["raises-exception"]


# ---------------------------------------------------------------- what nbval cannot see


def test_a_good_notebook_has_no_problem(executed):
    assert problems(executed) == []


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (drop_count, "cell 2: execution count None, expected 2"),
        (swap_counts, "cell 1: execution count 2, expected 1"),
        (skip, "cell 2: is skipped by nbval"),
        (skip_by_comment, "cell 2: is skipped by nbval"),
        (add_timing, "not normalised"),
        (ignore_without_assertion, "cell 1: its output is ignored and no assertion follows"),
        (add_stderr, "cell 1: has stderr output"),
        (add_svg, "cell 2: has an SVG picture"),
        (expect_error, "cell 2: ends with an error"),
        (hide_value, "cell 2: ends with `;`"),
    ],
)
def test_planted_fault_is_named(executed, fault, message):
    edit(executed, fault)
    assert any(message in problem for problem in problems(executed)), problems(executed)


def test_too_large_a_notebook(executed):
    edit(executed, lambda cells: cells[0].outputs[0].update(text="x" * MAX_BYTES))
    assert any("bytes, expected at most" in problem for problem in problems(executed))


def test_assertion_may_follow_the_ignored_cell_but_not_behind_the_next_one(tmp_path):
    path = tmp_path / "01_x.ipynb"
    stored = notebook(["# 01. X", "print(1)", "x = 2", "print(3)", "assert x == 2"])
    for index in (1, 3):
        stored.cells[index].metadata["tags"] = ["nbval-ignore-output"]
    save(stored, path)
    assert [problem for problem in problems(path) if "ignored" in problem] == [
        "01_x.ipynb: cell 1: its output is ignored and no assertion follows it"
    ]


@pytest.mark.parametrize("chapter", all_chapters(), ids=lambda chapter: chapter.stem)
def test_chapters_are_fit_for_regression(chapter):
    assert problems(chapter.path) == []


@pytest.mark.parametrize("chapter", all_chapters(), ids=lambda chapter: chapter.stem)
def test_chapters_keep_the_house_style(chapter):
    measures = anatomy(chapter.notebook)
    assert measures["median"] <= 5
    assert measures["p90"] <= 15
    assert measures["words per line"] >= 3


# ---------------------------------------------------------------- what nbval sees


def test_nbval_passes_a_good_notebook(executed):
    assert "2 passed" in nbval(executed)


def test_nbval_catches_an_edited_output(executed):
    edit(executed, set_output)
    assert re.search(r"1 failed, 1 passed", nbval(executed))


def test_nbval_alone_would_pass_a_cell_that_was_never_run(executed):
    """The reason for `count_problems`: a cell without count and outputs is executed and not compared."""
    edit(executed, drop_count)
    edit(executed, lambda cells: cells[1].outputs.clear())
    assert "2 passed" in nbval(executed)
    assert problems(executed)


# ---------------------------------------------------------------- normalising


def test_normalising_twice_changes_nothing(executed):
    edit(executed, add_timing)
    once = normalised(read_notebook(executed))
    assert normalised(once) == once


def test_normalising_keeps_ids_sources_tags_and_outputs(executed):
    edit(executed, add_timing)
    edit(executed, ignore_without_assertion)
    before = read_notebook(executed)
    before.cells[1].metadata["collapsed"] = True
    after = normalised(before)
    assert [cell.id for cell in after.cells] == [cell.id for cell in before.cells]
    assert [cell.source for cell in after.cells] == [cell.source for cell in before.cells]
    assert after.cells[1].metadata == {"tags": ["nbval-ignore-output"]}
    assert after.cells[1].outputs == before.cells[1].outputs


def test_streams_are_joined_and_progress_bars_gone(executed):
    def pieces(cells):
        cells[0].outputs = [
            new_output("stream", name="stdout", text="\r 0%|   |"),
            new_output("stream", name="stdout", text="\r      \rstep 0\n\r 50%|"),
            new_output("stream", name="stdout", text="\r      \r"),
        ]

    edit(executed, pieces)
    (output,) = normalised(read_notebook(executed)).cells[1].outputs
    assert output.text == "step 0\n"


@pytest.mark.parametrize(
    ("text", "seen"), [("a\rb\n", "b\n"), ("a\n", "a\n"), ("1\r2\r\n3  ", "\n3  "), ("x\r   \r", "")]
)
def test_as_on_screen(text, seen):
    assert as_on_screen(text) == seen


# ---------------------------------------------------------------- refreshing


def test_refresh_executes_in_the_notebooks_folder_and_normalises(tmp_path):
    path = tmp_path / "01_x.ipynb"
    stored = notebook(["# 01. X", "from pathlib import Path\nprint(Path.cwd().name)", "6 * 7"])
    for cell in stored.cells[1:]:
        cell.execution_count = None
    save(stored, path)
    refresh(Chapter(path))
    cells = read_notebook(path).cells
    assert cells[1].outputs[0].text == f"{tmp_path.name}\n"
    assert cells[2].outputs[0].data == {"text/plain": "42"}
    assert problems(path) == []


def test_refresh_that_fails_leaves_the_notebook_as_it_was(tmp_path):
    path = tmp_path / "01_x.ipynb"
    save(notebook(["# 01. X", "print('new')", "1 / 0"]), path)
    before = path.read_bytes()
    with pytest.raises(CourseError, match=r"(?s)01_x.ipynb failed and stays as it was.*ZeroDivisionError"):
        refresh(Chapter(path))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
