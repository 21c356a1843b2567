"""A course of two chapters in a temporary folder, for tests that plant a fault in it."""

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lecture_lib.base.paths import LIBRARY
from lecture_lib.course import promotion
from lecture_lib.course.stored import normalised, save

FIRST = [
    "# 01. Numbers\n\n*Video: [1:02](https://youtu.be/x?t=62), 3:04*",
    "import math",
    "## 1. Doubling",
    '#| export\ndef double(x):\n    """Twice `x`."""\n    return 2 * x',
    "## 2. Circles",
    "#| export\ndef area(r):\n    return math.pi * double(r) ** 2 / 4",
    "print(double(21))\nassert double(21) == 42",
]
SECOND = [
    "# 02. More numbers\n\n*Video: 5:06*",
    "from lecture_lib.numbers import double",
    "#| export\ndef quadruple(x):\n    return double(double(x))",
    "quadruple(1)",
]
CHAPTERS_PAGE = """\
| chapter | video | what it is about | in the library |
|---|---|---|---|
| [01 Numbers](../notebooks/01_numbers.ipynb) | 1:02 | numbers |  |
| [02 More](../notebooks/02_more.ipynb) | 5:06 | more |  |
"""


def notebook(sources: list[str]) -> nbformat.NotebookNode:
    """A normalised notebook of the sources; one that begins with `#` and a space is markdown."""
    cells = []
    for i, source in enumerate(sources):
        make = new_markdown_cell if source.startswith(("# ", "## ")) else new_code_cell
        cells.append(make(source, id=f"cell-{i}"))
    for count, cell in enumerate((cell for cell in cells if cell.cell_type == "code"), start=1):
        cell.execution_count = count
    return normalised(new_notebook(cells=cells))


class Course:
    """Two chapters, `01_numbers` and `02_more`, promoted to a library of their own."""

    def __init__(self, root: Path):
        self.notebooks, self.library, docs = (root / name for name in ("notebooks", "lecture_lib", "docs"))
        for folder in (self.notebooks, self.library, docs):
            folder.mkdir()
        self.page = docs / "chapters.md"
        (self.library / "base").symlink_to(LIBRARY / "base")
        self.page.write_text(CHAPTERS_PAGE)
        (docs / "places.md").touch()
        self.write("01_numbers", FIRST)
        self.write("02_more", SECOND)
        self.promote()

    def write(self, stem: str, sources: list[str]) -> None:
        save(notebook(sources), self.notebooks / f"{stem}.ipynb")

    def promote(self) -> list[Path]:
        return promotion.promote(self.notebooks, self.library)

    def check(self) -> list[str]:
        return promotion.check(self.notebooks, self.library)

    def text(self, module: str = "numbers") -> str:
        return (self.library / f"{module}.py").read_text(encoding="utf-8")
