"""Answers to exercises: the right ones, from the notebooks of solutions, and wrong ones, made from those.

A wrong answer is a solution with one place of its code changed, or another value altogether. It must be told
apart by a sentence of its own.
"""

import ast
import re
from functools import cache

import pytest
import torch

from lecture_lib.base.paths import SOLUTIONS
from lecture_lib.course.chapters import find_chapter
from lecture_lib.course.exercises import checking
from lecture_lib.course.progress import tasks_of

CHECK = re.compile(r'^check\("(?P<id>[\w.]+)", (?P<answer>.+)\)$', re.MULTILINE | re.DOTALL)
AT_MOST = 20  # seconds that a wrong answer may take in the tests


@cache
def parts(label: str) -> tuple[str, dict[str, str]]:
    """Of a notebook of solutions: the code that stands before the exercises, and each exercise's own code."""
    beginning, own, current = "", {}, None
    for cell in find_chapter(label, SOLUTIONS).notebook.cells:
        headings = re.findall(r"^### (\d\d[a-z]?\.\d) ", cell.source, re.MULTILINE)
        current = headings[-1] if headings and cell.cell_type == "markdown" else current
        if cell.cell_type == "code" and current is None:
            beginning += cell.source + "\n"
        elif cell.cell_type == "code":
            own[current] = own.get(current, "") + cell.source + "\n"
    return beginning, own


@cache
def started(label: str) -> dict:
    """The namespace after the code before the exercises."""
    names = {"__name__": "__main__"}
    exec(parts(label)[0], names)
    return names


def answer_of(id: str, *edits: str) -> object:
    """What the solution of an exercise hands to `check`; with `edits`, pairs of old and new code, another."""
    label = id.split(".")[0]
    code = parts(label)[1][id]
    for old, new in zip(edits[::2], edits[1::2], strict=True):
        assert code.count(old) == 1, f"{old!r} stands {code.count(old)} times in the code, expected once"
        code = code.replace(old, new)
    handed_in = {}
    names = {**started(label), "check": handed_in.__setitem__}
    torch.manual_seed(0)
    exec(code, names)
    assert list(handed_in) == [id], f"the solution of {id} checks {list(handed_in)}"
    return handed_in[id]


def function_that_raises(*_, **__):
    raise ZeroDivisionError("an example")


def function_that_never_ends(*_, **__):
    while True:
        pass


class Empty:
    """An object that can do nothing."""


# What may be handed in by mistake, whatever the exercise asks for.
BY_MISTAKE = {
    "a text": "a text",
    "an empty list": [],
    "a number": -12345.678,
    "NaN": float("nan"),
    "a tensor of NaN": torch.full((3, 3), float("nan")),
    "an object": Empty(),
    "a class": Empty,
    "raises": function_that_raises,
    "gives its argument": lambda *given, **_: given[0] if given else None,
    "gives a constant": lambda *_, **__: 0,
    "gives None": lambda *_, **__: None if _ else 1,
}


def exercise_tests(label: str, *wrong: tuple) -> type:
    """The tests of one chapter's exercises: a class, to be collected under a name that begins with `Test`.

    Each of `wrong` is the exercise's id, a name for the mistake, a part of the sentence that it must get, and
    either one value, the answer, or an even number of texts, pairs of old and new code in the solution.
    """
    ids = [task.id for task in tasks_of(find_chapter(label))]
    rows = [pytest.param(*row[:3], row[3:], id=f"{row[0]}-{row[1]}") for row in wrong]
    deadline = checking.deadline

    class TestExercises:
        @pytest.mark.parametrize("id", ids)
        def test_the_solution_is_right_and_the_stub_no_answer(self, id):
            found = checking.find_exercise(id)
            right, said = checking.verdict(found, answer_of(id))
            assert right, said
            assert checking.verdict(found, stub_of(id)) == (False, checking.NOT_ANSWERED)

        @pytest.mark.parametrize(("id", "name", "sentence", "given"), rows)
        def test_a_wrong_answer_gets_its_sentence(self, id, name, sentence, given):
            answer = given[0] if len(given) == 1 else answer_of(id, *given)
            right, said = checking.verdict(checking.find_exercise(id), answer)
            assert not right and sentence in said, said

        @pytest.mark.parametrize("id", ids)
        def test_three_kinds_of_wrong_answers_are_tried(self, id):
            sentences = {row[2] for row in wrong if row[0] == id}
            assert len(sentences) >= 3, f"{id}: {sorted(sentences)}"

        @pytest.mark.parametrize("name", BY_MISTAKE)
        @pytest.mark.parametrize("id", ids)
        def test_nothing_that_is_handed_in_by_mistake_is_right_or_crashes(self, id, name):
            right, said = checking.verdict(checking.find_exercise(id), BY_MISTAKE[name])
            assert not right and said, said

        @pytest.mark.parametrize("id", ids)
        def test_a_loop_that_never_ends_is_ended(self, id, monkeypatch):
            found = checking.find_exercise(id)
            monkeypatch.setattr(checking, "deadline", lambda _: deadline(0.2))
            right, said = checking.verdict(found, function_that_never_ends)
            assert not right and said, said

    return TestExercises


def stub_of(id: str) -> object:
    """What the chapter's own notebook hands to `check` for an exercise before anybody has answered it."""
    label = id.split(".")[0]
    for cell in find_chapter(label).notebook.cells:
        match = CHECK.search(cell.source) if cell.cell_type == "code" else None
        if match and match["id"] == id:
            names = {"check": lambda *_: None}
            exec("import torch\nfrom torch import nn\n" + definitions(cell.source), names)
            return eval(match["answer"], names)
    raise AssertionError(f"chapter {label} has no cell that checks {id}")


def definitions(source: str) -> str:
    """A stub's cell without the bases of its classes, which only the chapter knows."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            node.bases = []
        if isinstance(node, ast.FunctionDef):
            node.args.defaults, node.decorator_list, node.returns = [], [], None
            for argument in node.args.args:
                argument.annotation = None
    return ast.unparse(tree)
