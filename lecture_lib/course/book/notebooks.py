"""A chapter's notebook as a page of the book: stored outputs, links, folded code, promoted cells marked."""

from collections.abc import Iterator
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook

from lecture_lib.course.chapters import Chapter
from lecture_lib.course.promotion import PACKAGE, Cell, is_public, read_cells

from .links import in_book

# The chapter itself links to its solutions; this puts them below it in the sidebar.
BELOW = "```{{toctree}}\n:hidden:\n\nsolutions/{name}\n```"


def page_of(chapter: Chapter, solutions: Path | None = None) -> NotebookNode:
    """The notebook as the book shows it; the page of its `solutions`, if any, comes after it."""
    code = {cell.index: cell for cell in read_cells(chapter)}
    pages = (shown(cell, code.get(i), chapter) for i, cell in enumerate(chapter.notebook.cells))
    cells = [cell for page in pages for cell in page]
    if solutions:
        cells.append(new_markdown_cell(BELOW.format(name=solutions.name), id="solutions-of-this-chapter"))
    return new_notebook(cells=cells, metadata=chapter.notebook.metadata)


def shown(raw: NotebookNode, code: Cell | None, chapter: Chapter) -> Iterator[NotebookNode]:
    """What the book shows for one cell: itself, after a line that says where a promoted one went."""
    cell = raw.copy()
    if code is None:
        cell.source = in_book(raw.source, chapter.path.parent)
    else:
        cell.source = code.source
        folded = raw.metadata.get("jupyter", {}).get("source_hidden")
        cell.metadata = {"tags": [*raw.metadata.get("tags", []), *(["hide-input"] if folded else [])]}
    if code and code.module:
        yield new_markdown_cell(promoted(code), id=f"{raw.id}-goes-to")
    yield cell


def promoted(code: Cell) -> str:
    """A line of Markdown that links what a cell exports to its place among the library's pages."""
    module = f"{PACKAGE}.{code.module}"
    names = [f"{{py:obj}}`{name} <{module}.{name}>`" for name in code.names if is_public(name)]
    what = f"{', '.join(names)} in " if names else ""
    return f"```{{container}} promoted\nPromoted: {what}{{py:mod}}`{module}`\n```"
