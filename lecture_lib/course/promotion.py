"""Promotion: the cells that a notebook marks with `#| export`, written as an ordinary Python module.

The notebook is the single source. `#| export` sends a cell to the module of the notebook's own name,
`#| export training` to `lecture_lib/training.py`. The module gets just the imports that its code uses, taken
from the notebook's import lines, and a name that it would have to read from the notebook is an error.
"""

import ast
import builtins
import difflib
import re
import subprocess
import symtable
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from lecture_lib.base.errors import CourseError
from lecture_lib.base.files import write_text
from lecture_lib.base.paths import LIBRARY, NOTEBOOKS, ROOT

from .chapters import Chapter, all_chapters

PACKAGE = "lecture_lib"
DIRECTIVE = re.compile(r"\A#\| export(?: +(?P<module>[a-z_][a-z0-9_]*))?[ ]*\n")


@dataclass(frozen=True)
class Cell:
    """A code cell: where it stands, what it says, and the module that it is exported to, if any."""

    chapter: Chapter
    index: int  # 0-based, among all cells
    source: str  # without the directive
    heading: str  # the last markdown heading above it
    module: str | None

    def __str__(self) -> str:
        return f"{self.chapter.path.parent.name}/{self.chapter.path.name}, cell {self.index}"

    @property
    def tree(self) -> ast.Module:
        try:
            return ast.parse(self.source)
        except SyntaxError as error:
            raise CourseError(
                f"{self}: not plain Python, line {error.lineno}: {error.msg}; "
                "use no magics or shell lines, they cannot be promoted or checked"
            ) from error


@dataclass
class Module:
    """A module to be written: its exported cells, all of one notebook, and what they define."""

    name: str
    cells: list[Cell] = field(default_factory=list)

    @property
    def chapter(self) -> Chapter:
        return self.cells[0].chapter

    @property
    def definitions(self) -> dict[str, Cell]:
        return {name: cell for cell in self.cells for name in defined_names(cell)}


# ---------------------------------------------------------------- reading the notebooks


def code_cells(chapter: Chapter) -> list[Cell]:
    """The code cells of a chapter in order, each with its export directive taken off and read."""
    cells, heading = [], ""
    for index, raw in enumerate(chapter.notebook.cells):
        if raw.cell_type == "markdown":
            headings = re.findall(r"^#+ +(.+)$", raw.source, flags=re.MULTILINE)
            heading = headings[-1] if headings else heading
        elif raw.cell_type == "code":
            directive = DIRECTIVE.match(raw.source)
            module = (directive["module"] or chapter.module) if directive else None
            source = raw.source[directive.end() :] if directive else raw.source
            cells.append(Cell(chapter, index, source, heading, module))
    return cells


def read_modules(notebooks: Path = NOTEBOOKS) -> dict[str, Module]:
    """Every module that the notebooks export, checked: one source notebook each, no name exported twice."""
    modules: dict[str, Module] = {}
    owners: dict[str, Cell] = {}
    for cell in (cell for chapter in all_chapters(notebooks) for cell in code_cells(chapter) if cell.module):
        module = modules.setdefault(cell.module, Module(cell.module))
        if module.cells and module.chapter.path != cell.chapter.path:
            raise CourseError(
                f"{cell}: exports to {PACKAGE}/{module.name}.py, whose source is {module.chapter.path.name}; "
                "a module has one notebook as its source"
            )
        only_defines(cell)
        module.cells.append(cell)
        for name in defined_names(cell):
            if name != "main" and name in owners:
                raise CourseError(
                    f"{cell}: exports {name!r}, which {owners[name]} exports already; rename one"
                )
            owners[name] = cell
    return modules


def only_defines(cell: Cell) -> None:
    """An exported cell may import, define and name constants: anything else would run on import."""
    for statement in cell.tree.body:
        names = bound_names(statement)
        constant = isinstance(statement, ast.Assign | ast.AnnAssign) and "".join(names).isupper()
        definition = ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom
        if not constant and not isinstance(statement, definition):
            raise CourseError(
                f"{cell}: an exported cell may only import, define functions and classes, and name "
                f"UPPER_CASE constants; this would run on import: {ast.unparse(statement).splitlines()[0]}"
            )


def bound_names(statement: ast.stmt) -> list[str]:
    """The names that a top-level definition or assignment binds."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        return [node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and is_stored(node)]
    return []


def is_stored(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)


def defined_names(cell: Cell) -> list[str]:
    return [name for statement in cell.tree.body for name in bound_names(statement)]


def imports_of(cells: Iterable[Cell]) -> dict[str, str]:
    """Every name that the cells' top-level imports bind, with an import line for it alone."""
    lines = {}
    for statement in (statement for cell in cells for statement in cell.tree.body):
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for alias in statement.names:
                name = alias.asname or alias.name.split(".")[0]
                lines[name] = ast.unparse(one_import(statement, alias))
    return lines


def one_import(statement: ast.Import | ast.ImportFrom, alias: ast.alias) -> ast.stmt:
    if isinstance(statement, ast.Import):
        return ast.Import([alias])
    return ast.ImportFrom(statement.module, [alias], statement.level)


def free_names(source: str) -> set[str]:
    """The names that `source`, as a module, reads and neither defines nor finds among the builtins."""
    top = symtable.symtable(source, "module", "exec")
    bound = {
        symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()
    }

    def read_in(table: symtable.SymbolTable) -> set[str]:
        here = {
            symbol.get_name()
            for symbol in table.get_symbols()
            if symbol.is_referenced() and (table is top or symbol.is_global())
        }
        return here.union(*(read_in(child) for child in table.get_children()))

    return read_in(top) - bound - set(dir(builtins)) - {"__name__", "__file__", "__doc__"}


# ---------------------------------------------------------------- writing a module


def render(module: Module, modules: dict[str, Module]) -> str:
    """The text of the module's file."""
    body = "\n\n".join(cell.source.rstrip() for cell in without_imports(module.cells))
    names = sorted(public_names(module), key=as_in_an_import)
    parts = [
        f'"""{docstring(module)}"""',
        "\n".join(sorted(needed_imports(module, modules, body))),
        f"__all__ = {names!r}",
        body,
    ]
    if "main" in module.definitions:
        parts.append('if __name__ == "__main__":\n    main()')
    return formatted("\n\n".join(part for part in parts if part) + "\n")


def as_in_an_import(name: str) -> tuple[bool, bool, str]:
    """The order of names that isort and ruff keep: CONSTANTS, then Classes, then functions."""
    return not name.isupper(), not name[0].isupper(), name


def docstring(module: Module) -> str:
    """Title, video time and source. A module with a name of its own takes its section's heading as title."""
    own = module.name == module.chapter.module
    title = module.chapter.title if own else module.cells[0].heading
    title = re.sub(r"^\d+[a-z]?(?:\.\d+)*[.:]? +", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title))
    times = f"Video {module.chapter.video_times}.\n" if module.chapter.video_times else ""
    return (
        f"{title.rstrip('.')}.\n\n{times}Promoted from notebooks/{module.chapter.path.name} by "
        "`lecture promote`: edit the notebook, not this file.\n"
    )


def public_names(module: Module) -> list[str]:
    """What other modules may import from it: all that it defines but `main`, which is for `python -m`."""
    return [name for name in module.definitions if name != "main"]


def without_imports(cells: Iterable[Cell]) -> list[Cell]:
    """The cells that hold more than imports (a module's imports are gathered at its top)."""
    kept = []
    for cell in cells:
        kinds = {isinstance(statement, ast.Import | ast.ImportFrom) for statement in cell.tree.body}
        if kinds == {True, False}:
            raise CourseError(
                f"{cell}: an exported cell holds imports beside definitions; put them in a cell apart"
            )
        if kinds == {False}:
            kept.append(cell)
    return kept


def needed_imports(module: Module, modules: dict[str, Module], body: str) -> set[str]:
    """One import line for each free name of the module's code; CourseError for a name from nowhere."""
    notebook = code_cells(module.chapter)
    imported = imports_of(notebook)
    exported = {name: other.name for other in modules.values() for name in public_names(other)}
    lines = set()
    for name in free_names(body):
        if name in imported:
            lines.add(imported[name])
        elif exported.get(name, module.name) != module.name:
            lines.add(f"from {PACKAGE}.{exported[name]} import {name}")
        else:
            raise CourseError(unresolved(name, module, notebook))
    return lines


def unresolved(name: str, module: Module, notebook: list[Cell]) -> str:
    user = next((cell for cell in module.cells if name in free_names(cell.source)), module.cells[0])
    setters = [f"{cell} sets it without exporting it" for cell in notebook if name in defined_names(cell)]
    source = setters[0] if setters else "the notebook does not define it at top level"
    return (
        f"{user}: exports code that reads {name!r}, which it neither defines nor imports ({source}); "
        "pass it as an argument or export it"
    )


def formatted(source: str) -> str:
    """`source` with its imports sorted and its layout set by ruff."""
    for command in (["check", "--select=I", "--fix", "--quiet"], ["format", "--quiet"]):
        # The name only says that this is a file of the package, so that its imports count as our own.
        line = [sys.executable, "-m", "ruff", *command, f"--stdin-filename={LIBRARY / 'promoted.py'}", "-"]
        done = subprocess.run(line, input=source, capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            raise CourseError(
                f"ruff {command[0]} refuses the promoted code:\n{done.stderr or done.stdout}\n{source}"
            )
        source = done.stdout
    return source


# ---------------------------------------------------------------- promote and check


def promote(notebooks: Path = NOTEBOOKS, library: Path = LIBRARY) -> list[Path]:
    """Write every exported module to `library`; returns the files whose text changed."""
    modules = read_modules(notebooks)
    changed = []
    for module in modules.values():
        path = library / f"{module.name}.py"
        text = render(module, modules)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
            changed.append(path)
    return changed


def check(notebooks: Path = NOTEBOOKS, library: Path = LIBRARY) -> list[str]:
    """What is wrong between notebooks and library, a message each; an empty list when all is well."""
    try:
        modules = read_modules(notebooks)
        return [
            *(problem for module in modules.values() for problem in differences(module, modules, library)),
            *orphans(modules, library),
            *later_imports(modules, notebooks),
            *failed_imports(modules, library),
        ]
    except CourseError as error:  # what keeps the modules from being written at all
        return [str(error)]


def differences(module: Module, modules: dict[str, Module], library: Path) -> list[str]:
    expected, path = render(module, modules), library / f"{module.name}.py"
    if not path.exists():
        return [f"{path.name}: missing, though {module.cells[0]} exports to it; run `lecture promote`"]
    found = path.read_text(encoding="utf-8")
    if found == expected:
        return []
    names = f"{PACKAGE}/{path.name}", module.chapter.path.name
    diff = difflib.unified_diff(found.splitlines(), expected.splitlines(), *names, lineterm="")
    return [
        f"{PACKAGE}/{path.name} differs from {changed_cell(module, found, expected)}; edit the notebook, "
        "then run `lecture promote`\n" + "\n".join(diff)
    ]


def changed_cell(module: Module, found: str, expected: str) -> Cell:
    """The cell that the first differing line belongs to: that of the last definition begun before it."""
    lines = expected.splitlines()
    pairs = enumerate(zip(found.splitlines(), lines, strict=False))
    first = next((number for number, (old, new) in pairs if old != new), len(lines))
    cell = module.cells[0]
    for line in lines[: first + 1]:
        begun = re.match(r"(?:def|class) (\w+)|(\w+)(?:: .*)? = ", line)
        cell = module.definitions.get(begun and (begun[1] or begun[2]), cell)
    return cell


def orphans(modules: dict[str, Module], library: Path) -> list[str]:
    files = sorted(path for path in library.glob("*.py") if path.name != "__init__.py")
    return [
        f"{PACKAGE}/{path.name}: no notebook exports to it; delete it, or mark a cell `#| export {path.stem}`"
        for path in files
        if path.stem not in modules
    ]


def later_imports(modules: dict[str, Module], notebooks: Path) -> list[str]:
    """Imports of a module whose source is this chapter itself or a later one."""
    problems = []
    for chapter in all_chapters(notebooks):
        for cell in code_cells(chapter):
            for name in imported_modules(cell.tree):
                if name in modules and modules[name].chapter.label >= chapter.label:
                    source = modules[name].chapter.path.name
                    problems.append(
                        f"{cell}: imports {PACKAGE}.{name}, whose source is {source}; "
                        "a chapter imports earlier chapters only"
                    )
    return problems


def imported_modules(tree: ast.Module) -> set[str]:
    """The modules of the package that any import in `tree` names, without the package's own name."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name.split(".")[1] for name in names if name.startswith(f"{PACKAGE}.")}


def failed_imports(modules: dict[str, Module], library: Path) -> list[str]:
    """Import each module in an interpreter of its own, two at a time: it must succeed and say nothing."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        results = pool.map(lambda name: import_alone(name, library), modules)
    return [problem for problem in results if problem]


def import_alone(name: str, library: Path) -> str | None:
    command = [sys.executable, "-c", f"import {library.name}.{name}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=library.parent)
    if done.returncode == 0 and not done.stdout + done.stderr:
        return None
    said = (done.stdout + done.stderr).rstrip()
    return f"{PACKAGE}/{name}.py: does not import quietly in a clean interpreter:\n{said}"
