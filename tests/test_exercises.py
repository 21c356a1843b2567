"""How exercises are answered: stubs, what a check survives, what is remembered, guesses, copies."""

import ast
import json
import random
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from numbers import Real
from operator import attrgetter
from pathlib import Path

import pytest
import torch
from jupyter_client.manager import start_new_kernel
from torch import nn

from lecture_lib.base.errors import CourseError
from lecture_lib.base.files import write_text
from lecture_lib.base.paths import NOTEBOOKS, ROOT, SOLUTIONS
from lecture_lib.course import cli, copies, progress
from lecture_lib.course.chapters import all_chapters, find_chapter
from lecture_lib.course.exercises import check, checking, guess
from lecture_lib.course.exercises.asking import Wrong, ask, expect, number, tensor
from lecture_lib.course.kernels import own_kernels

# ---------------------------------------------------------------- every chapter's exercises


@pytest.mark.parametrize("chapter", all_chapters(), ids=lambda chapter: chapter.stem)
def test_notebook_checks_and_solutions_have_the_same_exercises(chapter):
    tasks = progress.tasks_of(chapter)
    ids = [task.id for task in tasks]
    assert ids == [f"{chapter.label}.{k}" for k in range(1, len(ids) + 1)] and 3 <= len(ids) <= 5
    assert tasks[0].level == "easy"
    checking.find_exercise(ids[0])
    assert sorted(id for id in checking.EXERCISES if id.startswith(f"{chapter.label}.")) == ids
    solved = find_chapter(chapter.label, SOLUTIONS)
    assert solved.stem == chapter.stem
    for stored in (chapter, solved):
        code = "\n".join(cell.source for cell in stored.notebook.cells if cell.cell_type == "code")
        assert re.findall(r'^check\("([\w.]+)", ', code, re.MULTILINE) == ids


@pytest.mark.parametrize("chapter", all_chapters(), ids=lambda chapter: chapter.stem)
def test_every_exercise_has_a_hint_and_leads_to_its_solutions(chapter):
    for text in progress.HEADING.split(chapter.prose)[5::5]:
        assert "<details><summary>Hint</summary>" in text
    assert f"(../notebooks/solutions/{chapter.path.name})" in chapter.prose


@pytest.mark.parametrize("chapter", all_chapters(), ids=lambda chapter: chapter.stem)
def test_a_chapter_asks_for_at_most_three_guesses(chapter):
    code = "\n".join(cell.source for cell in chapter.notebook.cells if cell.cell_type == "code")
    assert len(re.findall(r"^guess\(", code, re.MULTILINE)) <= 3


@pytest.mark.parametrize("chapter", all_chapters(), ids=lambda chapter: chapter.stem)
def test_no_chapter_gives_the_names_of_check_and_guess_to_something_else(chapter):
    code = (cell.source for cell in chapter.notebook.cells if cell.cell_type == "code")
    nodes = [node for source in code for node in ast.walk(ast.parse(source))]
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert not {"check", "guess"} & (stored | defined)


def test_an_unknown_exercise():
    with pytest.raises(CourseError, match=r"no exercise '04.9'; chapter 04 has 04.1, 04.2"):
        check("04.9", 1)
    with pytest.raises(CourseError, match=r"no chapter '77'"):
        check("77.1", 1)


# ---------------------------------------------------------------- what may be handed in


def stub(x): ...


def documented(x):
    """With its task."""


class Stub(nn.Module):
    def __init__(self, C): ...

    def forward(self, x): ...


class HalfDone(nn.Module):
    def forward(self, x):
        return x


@pytest.mark.parametrize("answer", [..., None, stub, documented, Stub, (1, ...), {"a": ...}, [stub]])
def test_what_counts_as_no_answer(answer):
    assert checking.is_stub(answer)


@pytest.mark.parametrize("answer", [0, "", False, lambda x: x, HalfDone, (1, 2), {}, nn.Linear(1, 1)])
def test_what_counts_as_an_answer(answer):
    assert not checking.is_stub(answer)


def judged(kind, judge, answer, seconds=5):
    return checking.verdict(checking.Exercise("99.1", kind, "what is expected", seconds, judge), answer)


def test_the_line_of_a_learner_that_failed_is_named(tmp_path):
    path = tmp_path / "cell.py"
    path.write_text("def half(x):\n    return x / 0\n")
    names = {}
    exec(compile(path.read_text(), str(path), "exec"), names)
    right, said = judged(object, lambda f: f(1), names["half"])
    assert not right
    assert said.startswith('not yet. Your code stopped in line 2 at "return x / 0" with ZeroDivisionError')


def test_what_cannot_be_used_and_what_is_of_another_kind():
    right, said = judged(object, attrgetter("shape"), "text")
    assert not right and "can't be used" in said and said.endswith("Expected what is expected.")
    assert "got a str, 'text'" in judged(Real, str, "text")[1]
    assert "isn't a finite number" in judged(Real, str, float("nan"))[1]
    assert "got a str, 'True'" in judged(Real, str, True)[1]
    assert judged(Real, lambda x: f"{x:.1f}", torch.tensor([2.5])) == (True, "right. 2.5")


def endless(_):
    while True:
        try:
            time.sleep(0.01)
        except Exception:  # as a learner's code may have it
            continue


def leaves(_):
    sys.exit(1)


def test_what_does_not_end_and_what_ends_python():
    right, said = judged(object, endless, 1, seconds=0.1)
    assert not right and "still running after 0.1 s" in said
    assert judged(object, leaves, 1)[0] is False
    assert judged(object, lambda _: "in time", 1, seconds=0.1) == (True, "right. in time")
    time.sleep(0.15)  # no bell rings after the check


def test_a_check_in_another_thread_has_no_deadline():
    results = []
    thread = threading.Thread(target=lambda: results.append(judged(object, lambda _: "fine", 1)))
    thread.start()
    thread.join()
    assert results == [(True, "right. fine")]


def test_checks_leave_random_numbers_as_they_were():
    torch.manual_seed(5)
    random.seed(5)
    expected = torch.rand(2), random.random()
    torch.manual_seed(5)
    random.seed(5)
    drawn = [judged(object, lambda _: str((torch.rand(1), random.random())), 1) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert torch.equal(torch.rand(2), expected[0]) and random.random() == expected[1]


# ---------------------------------------------------------------- asking and comparing


def test_a_changed_argument_is_noticed_and_the_original_safe():
    x = torch.zeros(3)
    with pytest.raises(Wrong, match="in place"):
        ask(lambda x: x.add_(1), x)
    assert torch.equal(x, torch.zeros(3))
    with pytest.raises(Wrong, match="in place"):
        ask(lambda words: words.append(1), [])
    assert ask(lambda x, y: x + y, 1, y=2) == 3


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.zeros(2), "it: at (1,), expected 1, got 0"),
        (torch.ones(2, 1), "it: expected shape (2,), got (2, 1)"),
        (torch.tensor([0.0, 2.0]), "twice"),
        (torch.tensor([0.0, float("nan")]), "a NaN at (1,)"),
        ([0.0, 1.0], "expected a tensor of shape (2,), got list"),
    ],
)
def test_what_is_said_of_a_tensor(value, said):
    with pytest.raises(Wrong, match=re.escape(said)):
        expect(value, torch.tensor([0.0, 1.0]), "it", {"twice": torch.tensor([0.0, 2.0])})


def test_what_is_said_of_a_number():
    expect(1.0, 1, "it")
    expect(float("1"), 1.000001, "it")
    with pytest.raises(Wrong, match="it: expected 1, got 3"):
        expect(3, 1, "it", {"twice": 2})
    with pytest.raises(Wrong, match="twice"):
        expect(torch.tensor(2.0), 1, "it", {"twice": 2})
    with pytest.raises(Wrong, match="expected a number, got 'x'"):
        number("x", "it")
    assert tensor(torch.ones(1), (1,), "it") == 1


# ---------------------------------------------------------------- guesses


@pytest.mark.parametrize(
    ("said", "found", "printed"),
    [
        (..., 4.8786, "no guess; it is 4.88"),
        (4.2, 4.8786, "you guessed 4.2; it is 4.88: 0.68 too low"),
        (torch.tensor(5), 4.8786, "you guessed 5; it is 4.88: 0.12 too high"),
        (4.88, 4.8786, "you guessed 4.88; it is 4.88: just so"),
        ("many", 4.8786, "you guessed many; it is 4.88"),
        ("softmax", "mask", "you guessed softmax; it is mask"),
    ],
)
def test_guesses(capsys, said, found, printed):
    guess(said, found)
    assert capsys.readouterr().out.strip() == printed


# ---------------------------------------------------------------- progress


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(progress, "interactive", lambda: True)
    return tmp_path / "out" / "progress.json"


def test_what_is_solved_stays_solved(file):
    progress.remember("04.1", True, file)
    progress.remember("04.1", False, file)
    progress.remember("05b.2", False, file)
    content = json.loads(file.read_text())
    assert list(content["04"]["solved"]) == ["04.1"] and content["05b"]["solved"] == {}
    table = progress.progress_table(file)
    total = len(progress.tasks_of(find_chapter("04")))
    assert re.search(rf"^04_averaging +1 of {total} +04\.2 .*{content['04']['run']}$", table, re.MULTILINE)


def test_two_notebooks_at_once_lose_nothing(file):
    ids = [f"{k:02}.{j}" for k in range(10) for j in range(1, 5)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda id: progress.remember(id, True, file), ids))
    content = json.loads(file.read_text())
    assert sorted(id for chapter in content.values() for id in chapter["solved"]) == ids


@pytest.mark.parametrize("content", ["{", "[1]", '{"04": 3}', '{"04": {}}', "\0"])
def test_a_damaged_file_is_kept_aside(file, capsys, content):
    write_text(file, content)
    progress.remember("04.1", True, file)
    assert "damaged" in capsys.readouterr().out
    assert file.with_suffix(".damaged.json").read_text() == content
    assert list(json.loads(file.read_text())) == ["04"]


def test_a_file_that_cannot_be_written_costs_a_sentence(file, capsys):
    file.parent.write_text("in the way")
    progress.remember("04.1", True, file)
    assert "couldn't be noted" in capsys.readouterr().out


def test_nothing_is_noted_outside_of_a_notebook(tmp_path, capsys):
    progress.remember("04.1", True, tmp_path / "progress.json")
    assert not list(tmp_path.iterdir()) and not capsys.readouterr().out


def test_only_a_person_counts(tmp_path):
    """papermill and nbval tell the kernel that nobody answers; JupyterLab that somebody may."""
    path = tmp_path / "progress.json"
    code = (
        "from pathlib import Path; from lecture_lib.course import progress; "
        f"progress.remember('04.1', True, Path({str(path)!r}))"
    )
    with own_kernels():
        manager, client = start_new_kernel(cwd=str(ROOT))
    try:
        for allowed in (False, True):
            answer = client.execute_interactive(code, allow_stdin=allowed, timeout=60, output_hook=print)
            assert answer["content"]["status"] == "ok"
            assert path.exists() == allowed
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_the_command_shows_the_table(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(progress.progress_table, "__defaults__", (tmp_path / "none.json",))
    assert cli.main(["progress"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(all_chapters()) + 3 and lines[-1].startswith("all ")


# ---------------------------------------------------------------- a learner's copies


def laid_out(tmp_path: Path) -> tuple[Path, Path]:
    originals, mine = tmp_path / "notebooks", tmp_path / "my_notebooks"
    originals.mkdir(exist_ok=True)
    for name in ("04_averaging.ipynb", "02_batches.ipynb"):
        (originals / name).write_bytes((NOTEBOOKS / name).read_bytes())
    return originals, mine


def test_copies_are_made_and_a_changed_one_stays(tmp_path):
    originals, mine = laid_out(tmp_path)
    assert copies.lay_out(originals, mine) == []
    work, untouched = mine / "04_averaging.ipynb", mine / "02_batches.ipynb"
    write_text(work, work.read_text().replace("row_sums = ...", "row_sums = 1"))
    assert copies.lay_out(originals, mine) == []
    for path in originals.iterdir():
        path.write_text(path.read_text() + "\n")
    (sentence,) = copies.lay_out(originals, mine)
    assert str(work) in sentence and "stays" in sentence
    assert "row_sums = 1" in work.read_text()
    assert untouched.read_text() == (originals / untouched.name).read_text()


def test_a_copy_that_was_deleted_comes_back(tmp_path):
    originals, mine = laid_out(tmp_path)
    copies.lay_out(originals, mine)
    (mine / "04_averaging.ipynb").unlink()
    copies.lay_out(originals, mine)
    assert (mine / "04_averaging.ipynb").read_bytes() == (originals / "04_averaging.ipynb").read_bytes()


def test_lab_opens_the_copies(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(cli, "MINE", tmp_path / "mine")
    monkeypatch.setattr(copies.lay_out, "__defaults__", (laid_out(tmp_path)[0], tmp_path / "mine"))
    monkeypatch.setattr(subprocess, "call", lambda command, cwd: asked.append((command[1:], cwd)) or 0)
    assert cli.main(["lab"]) == 0
    assert asked == [(["-m", "jupyter", "lab"], tmp_path / "mine")]
    assert (tmp_path / "mine" / "04_averaging.ipynb").exists()
