"""Stored notebooks: normalising, what nbval cannot see and what it does see, each with a planted fault."""

import json
import re
import signal
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_output
from small_course import notebook

from lecture_lib.base.errors import CourseError
from lecture_lib.course.chapters import Chapter, read_notebook
from lecture_lib.course.stored import (
    MAX_BYTES,
    as_on_screen,
    normalised,
    problems,
    refresh,
    save,
    style_problems,
    tidy,
)


def edit(path, change):
    """Apply `change` to the notebook's code cells and store it as it then is."""
    stored = read_notebook(path)
    change([cell for cell in stored.cells if cell.cell_type == "code"])
    nbformat.write(stored, path)


def nbval(path) -> str:
    """What nbval says of a notebook."""
    options = ["-q", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, str(path)]
    return subprocess.run(command, capture_output=True, text=True).stdout


def tagged(position: int, tag: str):
    """The change that gives a code cell a tag."""
    return lambda cells: cells[position].metadata.update(tags=[tag])


def drop_count(cells):
    cells[1].execution_count = None


def swap_counts(cells):
    cells[0].execution_count, cells[1].execution_count = 2, 1


def add_timing(cells):
    cells[0].metadata["execution"] = {"iopub.execute_input": "2026-01-01T00:00:00Z"}


# ---------------------------------------------------------------- what nbval cannot see


def test_a_good_notebook_has_no_problem(executed):
    assert problems(executed) == []


def in_the_file(path, **changed):
    """Change a cell of the notebook as it lies in the file, where no library repairs it."""
    content = json.loads(path.read_text())
    cell = content["cells"][2]
    cell |= changed
    for name in [name for name, value in changed.items() if value is None]:
        del cell[name]
    path.write_text(json.dumps(content))


@pytest.mark.filterwarnings("ignore")  # nbformat's, about what it repairs when it reads
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cell_type": "raw", "outputs": None, "execution_count": None}, "cell 2: is raw; make it code"),
        ({"id": None}, "cell 2: has no id; run `lecture refresh`"),
        ({"id": "cell-1"}, "cell 2: has the id of an earlier cell, cell-1"),
    ],
)
def test_kinds_and_ids_are_read_from_the_file(executed, changed, message):
    in_the_file(executed, **changed)
    assert any(message in problem for problem in problems(executed))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (drop_count, "cell 2: execution count None, expected 2"),
        (swap_counts, "cell 1: execution count 2, expected 1"),
        (tagged(1, "nbval-skip"), "cell 2: is skipped by nbval"),
        (lambda cells: cells[1].update(source="# NBVAL_SKIP\n1 + 1"), "cell 2: is skipped by nbval"),
        (
            lambda cells: cells[1].update(source="# NBVAL_IGNORE_OUTPUT\n1 + 1"),
            "cell 2: has NBVAL_IGNORE_OUTPUT as a comment; tag the cell",
        ),
        (add_timing, "not normalised"),
        (tagged(0, "nbval-ignore-output"), "cell 1: its output is ignored and no assertion follows"),
        (
            lambda cells: cells[0].outputs.append(new_output("stream", name="stderr", text="a warning\n")),
            "cell 1: has stderr output",
        ),
        (
            lambda cells: cells[1].outputs[0].data.update({"image/svg+xml": "<svg/>"}),
            "cell 2: has an SVG picture",
        ),
        (tagged(1, "raises-exception"), "cell 2: ends with an error"),
        (lambda cells: cells[1].update(source="1 + 1;"), "cell 2: ends with `;`"),
        (lambda cells: cells[0].outputs[0].update(text="x" * MAX_BYTES), "bytes, expected at most 500,000"),
    ],
)
def test_planted_fault_is_named(executed, fault, message):
    edit(executed, fault)
    assert any(message in problem for problem in problems(executed)), problems(executed)


def test_assertion_may_follow_the_ignored_cell_but_not_behind_the_next_one(tmp_path):
    path = tmp_path / "01_x.ipynb"
    stored = notebook(["# 01. X", "print(1)", "x = 2", "print(3)", "assert x == 2"])
    for index in (1, 3):
        stored.cells[index].metadata["tags"] = ["nbval-ignore-output"]
    save(stored, path)
    assert [problem for problem in problems(path) if "ignored" in problem] == [
        "01_x.ipynb: cell 1: its output is ignored and no assertion follows it"
    ]


SHORT, LONG, PROSE = "x = 1", "x = 1\n" * 16, "# " + "Words that say why. " * 20


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([PROSE, SHORT, PROSE], None),
        (["x = 1\n\n" * 5, PROSE], None),  # empty lines don't count
        ([SHORT, *["x = 1\n" * 6] * 2, *[PROSE] * 3], "half of its code cells have 6 lines or more"),
        ([*[SHORT] * 9, *[LONG] * 2, *[PROSE] * 3], "a tenth of its code cells have 16 lines or more"),
        ([SHORT, SHORT], "1.5 words of prose for a line of code, expected at least 3"),
    ],
)
def test_the_house_style_of_a_chapter(tmp_path, cells, message):
    chapter = Chapter(tmp_path / "01_x.ipynb")
    save(notebook(["# one two three", *cells]), chapter.path)
    assert style_problems(chapter) == [] if message is None else message in style_problems(chapter)[0]


def test_a_folded_cell_has_no_part_in_the_house_style(tmp_path):
    chapter = Chapter(tmp_path / "01_x.ipynb")
    stored = notebook(["# one two three", *[SHORT] * 9, *[LONG] * 2, *[PROSE] * 3])
    for index in (10, 11):
        stored.cells[index].metadata["jupyter"] = {"source_hidden": True}
    save(stored, chapter.path)
    assert style_problems(chapter) == []


# ---------------------------------------------------------------- what nbval sees


def test_nbval_passes_a_good_notebook(executed):
    assert "2 passed" in nbval(executed)


def test_nbval_catches_an_edited_output(executed):
    edit(executed, lambda cells: cells[0].outputs[0].update(text="goodbye\n"))
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
    edit(executed, tagged(0, "nbval-ignore-output"))
    before = read_notebook(executed)
    before.cells[1].metadata["collapsed"] = True
    after = normalised(before)
    assert [cell.id for cell in after.cells] == [cell.id for cell in before.cells]
    assert [cell.source for cell in after.cells] == [cell.source for cell in before.cells]
    assert after.cells[1].metadata == {"tags": ["nbval-ignore-output"]}
    assert after.cells[1].outputs == before.cells[1].outputs


def test_a_cell_stays_folded_and_what_else_the_editor_notes_of_it_goes(executed):
    noted = {"jupyter": {"source_hidden": True, "outputs_hidden": True}}
    edit(executed, lambda cells: cells[0].metadata.update(noted))
    edit(executed, lambda cells: cells[1].metadata.update(jupyter={"source_hidden": False}))
    first, second = normalised(read_notebook(executed)).cells[1:]
    assert first.metadata == {"jupyter": {"source_hidden": True}}
    assert second.metadata == {}


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


def test_what_jupyterlab_adds_on_saving_is_tidied_away_without_executing(executed):
    stored, notebook = executed.read_text(), json.loads(executed.read_text())
    notebook["metadata"]["language_info"] |= {"version": "3.11.7", "file_extension": ".py"}
    notebook["cells"][1]["metadata"] = {"trusted": True, "execution": {"iopub.status.busy": "12:00"}}
    executed.write_text(json.dumps(notebook))
    assert "run `lecture tidy`" in "\n".join(problems(executed))
    assert tidy(executed) and executed.read_text() == stored
    assert not tidy(executed) and problems(executed) == []


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


INTERRUPTING = "import os, signal, time\nos.kill(os.getppid(), signal.SIGINT)\ntime.sleep(60)"
KILLED = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize(
    ("cell", "kind", "message"),
    [
        (INTERRUPTING, KeyboardInterrupt, "^$"),
        (KILLED, CourseError, "01_x.ipynb stays as it was: at cell 2, Kernel died; perhaps out of memory"),
    ],
    ids=["Ctrl-C", "killed"],
)
def test_refresh_that_is_cut_short_leaves_the_notebook_as_it_was(tmp_path, cell, kind, message):
    path = tmp_path / "01_x.ipynb"
    save(notebook(["# 01. X", "print('new')", cell]), path)
    stored, before = path.read_bytes(), signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(kind, match=message):
            refresh(Chapter(path))
    finally:
        signal.signal(signal.SIGINT, before)
    assert path.read_bytes() == stored
