"""The notebooks as they are stored in git: normalised, executed in order, fit for a regression test.

nbval compares stored outputs with new ones, but it passes over a cell that was never executed, and over one
that is tagged to be skipped. What it can't see is checked here.
"""

import ast
import json
import re
from pathlib import Path
from statistics import median

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from lecture_lib.base.errors import CourseError
from lecture_lib.base.files import replacing

from .chapters import Chapter, read_notebook
from .kernels import NAME
from .references import citation_problems

IGNORED = "nbval-ignore-output"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": NAME}
# Without its warning of unencrypted local sockets, and the errors of a kernel that is ended while it works.
QUIET_KERNEL = ("--log-level=CRITICAL",)
MAX_BYTES = 500_000


def refresh(chapter: Chapter) -> None:
    """Execute the notebook in a fresh kernel, in its own folder, and store its normalised outputs."""
    notebook = read_notebook(chapter.path)
    client = NotebookClient(
        notebook,
        kernel_name=NAME,
        resources={"metadata": {"path": chapter.path.parent}},
        extra_arguments=[*QUIET_KERNEL],
    )
    reached = 0
    try:
        with client.setup_kernel():  # client.execute() would answer Ctrl-C with a stack trace
            for reached, cell in enumerate(notebook.cells):
                client.execute_cell(cell, reached)
    except CellExecutionError as error:
        raise CourseError(f"{chapter.path.name} failed and stays as it was:\n{error}") from error
    except RuntimeError as error:  # nbclient's, for a kernel that died or doesn't answer
        advice = "perhaps out of memory: close other programs and try again"
        raise CourseError(
            f"{chapter.path.name} stays as it was: at cell {reached}, {error}; {advice}"
        ) from error
    save(normalised(notebook), chapter.path)


def tidy(path: Path) -> bool:
    """Normalise a stored notebook as it is, without executing it; whether that changed the file."""
    before = path.read_bytes()
    save(normalised(read_notebook(path)), path)
    return path.read_bytes() != before


def save(notebook: NotebookNode, path: Path) -> None:
    """Write the notebook to `path`, as a whole or not at all."""
    with replacing(path) as temporary:
        nbformat.write(notebook, temporary)


# ---------------------------------------------------------------- normalising


def normalised(notebook: NotebookNode) -> NotebookNode:
    """A copy without what changes from run to run or from machine to machine.

    Sources, cell ids, tags and outputs are kept; a folded cell stays folded.
    """
    copy = nbformat.from_dict(notebook)
    copy.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for cell in copy.cells:
        folded = bool(cell.metadata.get("jupyter", {}).get("source_hidden"))
        kept = {"tags": cell.metadata.get("tags"), "jupyter": folded and {"source_hidden": True}}
        cell.metadata = nbformat.from_dict({key: value for key, value in kept.items() if value})
        if cell.cell_type == "code":
            cell.outputs = merged_streams(cell.outputs)
            for output in cell.outputs:
                if "metadata" in output:
                    output.metadata = nbformat.from_dict({})
    return copy


def merged_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Pieces of one stream joined (where they were cut depends on timing) and progress bars gone."""
    merged: list[NotebookNode] = []
    for output in outputs:
        if merged and is_stream(output) and is_stream(merged[-1]) and output.name == merged[-1].name:
            merged[-1].text += output.text
        else:
            merged.append(output)
    for output in filter(is_stream, merged):
        output.text = as_on_screen(output.text)
    return [output for output in merged if not is_stream(output) or output.text]


def is_stream(output: NotebookNode) -> bool:
    """Whether an output is printed text, not a value or a picture."""
    return output.output_type == "stream"


def as_on_screen(text: str) -> str:
    """The text as a terminal shows it, where a carriage return goes back to the start of its line."""
    lines = (line.rpartition("\r")[2].rstrip() if "\r" in line else line for line in text.split("\n"))
    return "\n".join(lines)


# ---------------------------------------------------------------- checking


def problems(path: Path) -> list[str]:
    """What is wrong with a stored notebook, a message each; an empty list when all is well."""
    notebook = read_notebook(path)
    code = [(index, cell) for index, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    found = count_problems(code)
    for index, cell in code:
        found += cell_problems(index, cell)
    found += unasserted(code)
    for index, cell in enumerate(notebook.cells):
        found += [f"cell {index}: {problem}" for problem in citation_problems(cell)]
    found += kind_and_id_problems(json.loads(path.read_text(encoding="utf-8"))["cells"])
    if notebook != normalised(notebook):
        found.append(
            "not normalised (timing, kernel or widget metadata, or a cut stream); run `lecture tidy`"
        )
    if path.stat().st_size > MAX_BYTES:
        found.append(
            f"{path.stat().st_size:,} bytes, expected at most {MAX_BYTES:,}; make its pictures smaller"
        )
    return [f"{path.name}: {problem}" for problem in found]


def kind_and_id_problems(cells: list[dict]) -> list[str]:
    """Cells, as they are in the file, that nothing executes or shows, and ids that aren't unique."""
    ids = [cell.get("id") for cell in cells]
    found = []
    for index, cell in enumerate(cells):
        if cell["cell_type"] == "raw":
            found.append(f"cell {index}: is raw; make it code or markdown")
        if not ids[index]:
            found.append(f"cell {index}: has no id; run `lecture refresh`")
        elif ids[index] in ids[:index]:
            found.append(f"cell {index}: has the id of an earlier cell, {ids[index]}; give it another")
    return found


def count_problems(code: list[tuple[int, NotebookNode]]) -> list[str]:
    """nbval passes a cell without execution count, and a notebook that ran out of order cannot be trusted."""
    return [
        f"cell {index}: execution count {cell.execution_count}, expected {expected}; run `lecture refresh`"
        for expected, (index, cell) in enumerate(code, start=1)
        if cell.execution_count != expected
    ]


def cell_problems(index: int, cell: NotebookNode) -> list[str]:
    """What would mislead nbval in a code cell, its tags or its outputs."""
    tags = cell.metadata.get("tags", [])
    found = []
    if "nbval-skip" in tags or "NBVAL_SKIP" in cell.source:
        found.append("is skipped by nbval; no cell may be")
    if "NBVAL_IGNORE_OUTPUT" in cell.source:
        found.append(f"has NBVAL_IGNORE_OUTPUT as a comment; tag the cell {IGNORED}, as checks look for that")
    if cell.source.rstrip().endswith(";"):
        found.append("ends with `;`: nbval sees the value that it hides; end with `plt.show()` or the like")
    if "raises-exception" in tags or any(output.output_type == "error" for output in cell.outputs):
        found.append("ends with an error")
    if any(output.get("name") == "stderr" for output in cell.outputs) and IGNORED not in tags:
        found.append("has stderr output, which differs between machines; print, or silence its cause")
    if any("image/svg+xml" in output.get("data", {}) for output in cell.outputs):
        found.append("has an SVG picture, whose ids are random; make it a PNG")
    return [f"cell {index}: {problem}" for problem in found]


def unasserted(code: list[tuple[int, NotebookNode]]) -> list[str]:
    """Cells whose outputs are ignored, with no assertion in them or between them and the next such cell."""
    found = []
    for position, (index, cell) in enumerate(code):
        if IGNORED in cell.metadata.get("tags", []) and not any(
            has_assert(later) for _, later in until_next_ignored(code[position:])
        ):
            found.append(f"cell {index}: its output is ignored and no assertion follows it")
    return found


def until_next_ignored(code: list[tuple[int, NotebookNode]]) -> list[tuple[int, NotebookNode]]:
    """The first of the cells and those after it; a run of ignored cells in a row counts as one."""
    taken, compared = [], False
    for index, cell in code:
        ignored = IGNORED in cell.metadata.get("tags", [])
        if ignored and compared:
            break
        compared = compared or not ignored
        taken.append((index, cell))
    return taken


def has_assert(cell: NotebookNode) -> bool:
    """Whether the cell asserts something, by statement or by one of torch's or numpy's own checks."""
    return any(
        isinstance(node, ast.Assert) or (isinstance(node, ast.Attribute) and node.attr.startswith("assert_"))
        for node in ast.walk(ast.parse(cell.source))
    )


def style_problems(chapter: Chapter) -> list[str]:
    """Where a chapter's notebook leaves the house style: short code cells, with prose that explains them.

    Folded cells don't count: nobody reads them in passing.
    """
    cells = chapter.notebook.cells
    shown = [cell for cell in cells if not cell.metadata.get("jupyter", {}).get("source_hidden")]
    code = [cell.source for cell in shown if cell.cell_type == "code"]
    lines = sorted(sum(bool(line.strip()) for line in source.split("\n")) for source in code)
    middle, long = median(lines), lines[int(0.9 * (len(lines) - 1))]
    words = len(re.findall(r"[A-Za-z']+", chapter.prose)) / sum(lines)
    found = []
    if middle > 5:
        found.append(f"half of its code cells have {middle:g} lines or more, expected at most 5; split them")
    if long > 15:
        found.append(f"a tenth of its code cells have {long} lines or more, expected at most 15; split them")
    if words < 3:
        found.append(f"{words:.1f} words of prose for a line of code, expected at least 3; explain more")
    return [f"{chapter.path.name}: {problem}" for problem in found]
