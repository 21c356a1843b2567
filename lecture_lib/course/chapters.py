"""The chapters: which notebooks there are, and what their first cell says of them."""

import ast
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lecture_lib.base.errors import CourseError
from lecture_lib.base.paths import NOTEBOOKS, SOLUTIONS

if TYPE_CHECKING:  # importing it takes a second, and a chapter's own kernel needs only `defaults`
    from nbformat import NotebookNode

NAME = re.compile(r"\d\d[a-z]?_[a-z]\w*\.ipynb")  # a copy, or an Untitled.ipynb, is no chapter
VIDEO_TIME = re.compile(r"\b(?:\d:)?\d{1,2}:\d{2}\b")


@dataclass(frozen=True)
class Chapter:
    """One notebook, `NN_name.ipynb`, or `NNb_name.ipynb` and so on for further parts of a chapter."""

    path: Path

    @property
    def stem(self) -> str:
        return self.path.stem

    @property
    def label(self) -> str:
        """Two digits, and a letter for a further part; chapters sort by it."""
        return self.stem.split("_")[0]

    @property
    def module(self) -> str:
        """Name of the module that the chapter's own exports go to: `03_bigram` -> `bigram`."""
        return self.stem.split("_", 1)[1]

    @cached_property
    def notebook(self) -> "NotebookNode":
        return read_notebook(self.path)

    @property
    def prose(self) -> str:
        """All text of the notebook, without its code."""
        return "\n".join(cell.source for cell in self.notebook.cells if cell.cell_type == "markdown")

    @property
    def declared(self) -> list[ast.AnnAssign]:
        """A line for each parameter: `name: type = value`; none for a chapter that has no parameters."""
        try:
            cells = json.loads(self.path.read_text(encoding="utf-8"))["cells"]  # nbformat would take a second
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CourseError(f"{self.path} is not a readable notebook: {error!r}") from None
        sources = ("".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", []))
        lines = [line for source in sources for line in ast.parse(source).body]
        return [line for line in lines if isinstance(line, ast.AnnAssign)]

    @property
    def defaults(self) -> dict[str, bool | int | float | str]:
        """Name and stored value of each parameter."""
        return {line.target.id: ast.literal_eval(line.value) for line in self.declared}

    @property
    def types(self) -> dict[str, str]:
        """Name and annotated type of each parameter."""
        return {line.target.id: ast.unparse(line.annotation) for line in self.declared}

    @property
    def opening(self) -> list[str]:
        """The lines of the first cell: title, video times, purpose."""
        return self.notebook.cells[0].source.splitlines()

    @property
    def title(self) -> str:
        return self.opening[0].lstrip("# ").strip()

    @property
    def video_times(self) -> str:
        """The time stamps of the line that begins with `Video`, e.g. `22:11, 34:53`."""
        line = next((line for line in self.opening if line.lstrip("*").startswith("Video")), "")
        return video_times(line)


def video_times(text: str) -> str:
    """The times of the video that a text names, e.g. `22:11, 34:53`, each once."""
    return ", ".join(dict.fromkeys(VIDEO_TIME.findall(text)))


def read_notebook(path: Path) -> "NotebookNode":
    """Read a notebook; CourseError if there is no such file, or if it's not a notebook."""
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise CourseError(f"{path} does not exist") from None
    except Exception as error:  # nbformat raises many kinds for a file that is not a notebook
        raise CourseError(f"{path} is not a readable notebook: {error}") from error


def all_chapters(folder: Path = NOTEBOOKS) -> list[Chapter]:
    """Every chapter in `folder`, in order."""
    chapters = [Chapter(path) for path in folder.glob("*.ipynb") if NAME.fullmatch(path.name)]
    return sorted(chapters, key=lambda chapter: chapter.label)


def all_notebooks() -> list[Chapter]:
    """Every chapter of the course, and after them the notebooks that solve their exercises."""
    return all_chapters() + all_chapters(SOLUTIONS)


def find_chapter(key: str, folder: Path = NOTEBOOKS) -> Chapter:
    """The chapter that `key` names: `3`, `03`, `bigram` or `03_bigram`; CourseError lists what exists."""
    chapters = all_chapters(folder)
    for chapter in chapters:
        if key in (chapter.label, chapter.label.removeprefix("0"), chapter.module, chapter.stem):
            return chapter
    names = ", ".join(chapter.stem for chapter in chapters) or f"none in {folder}"
    raise CourseError(f"no chapter {key!r}; expected a number or a name of: {names}")
