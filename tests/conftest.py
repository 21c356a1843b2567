"""A small course in a temporary folder, for tests that plant a fault in it."""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lecture_lib.course import promotion
from lecture_lib.course.stored import normalised, save

pytest.register_assert_rewrite("faults")  # so that its tests say what differs

FIRST = [
    "# 01. Numbers\n\n*Video: [1:02](https://youtu.be/x?t=62), 3:04*",
    "import math",
    "## 1. Doubling",
    '#| export\ndef double(x):\n    """Twice `x`."""\n    return 2 * x',
    "#| export\ndef area(r):\n    return math.pi * double(r) ** 2 / 4",
    "print(double(21))\nassert double(21) == 42",
]
SECOND = [
    "# 02. More numbers\n\n*Video: 5:06*",
    "from lecture_lib.numbers import double",
    "#| export\ndef quadruple(x):\n    return double(double(x))",
    "quadruple(1)",
]


def notebook(sources: list[str]) -> nbformat.NotebookNode:
    """A normalised notebook of the sources; one that begins with `#` and a blank is markdown."""
    is_markdown = [source.startswith(("# ", "## ")) for source in sources]
    makers = [new_markdown_cell if markdown else new_code_cell for markdown in is_markdown]
    cells = [
        make(source, id=f"cell-{i}") for i, (make, source) in enumerate(zip(makers, sources, strict=True))
    ]
    for count, cell in enumerate((cell for cell in cells if cell.cell_type == "code"), start=1):
        cell.execution_count = count
    return normalised(new_notebook(cells=cells))


class Course:
    """Two chapters, `01_numbers` and `02_more`, promoted to a library of their own."""

    def __init__(self, root: Path):
        self.notebooks, self.library = root / "notebooks", root / "lecture_lib"
        self.notebooks.mkdir()
        self.library.mkdir()
        (self.library / "__init__.py").touch()
        self.write("01_numbers", FIRST)
        self.write("02_more", SECOND)
        promotion.promote(self.notebooks, self.library)

    def path(self, stem: str) -> Path:
        return self.notebooks / f"{stem}.ipynb"

    def write(self, stem: str, sources: list[str]) -> Path:
        save(notebook(sources), self.path(stem))
        return self.path(stem)

    def check(self) -> list[str]:
        return promotion.check(self.notebooks, self.library)


@pytest.fixture
def course(tmp_path: Path) -> Course:
    return Course(tmp_path)


@pytest.fixture
def executed(tmp_path: Path):
    """A stored notebook as it should be: the first cell prints, the second shows a value."""
    stored = notebook(["# 07. Stored", "print('hello')", "1 + 1"])
    stored.cells[1].outputs = [new_output("stream", name="stdout", text="hello\n")]
    stored.cells[2].outputs = [new_output("execute_result", data={"text/plain": "2"}, execution_count=2)]
    path = tmp_path / "07_stored.ipynb"
    save(stored, path)
    return path
