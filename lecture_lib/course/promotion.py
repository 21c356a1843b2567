"""Promotion: the cells that a notebook marks with `#| export`, written as ordinary Python modules.

The notebook is the single source. `#| export` sends a cell to the module of the notebook's own name;
`#| export training: Train a model` to `lecture_lib/training.py`, whose title follows the colon. A module gets
the imports that its code uses, from its own notebook's import lines and the notebook's other modules; a name
that it would have to take from anywhere else is an error.
"""

import ast
import difflib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from lecture_lib.base.errors import CourseError
from lecture_lib.base.files import write_text
from lecture_lib.base.paths import LIBRARY, NOTEBOOKS, ROOT
from lecture_lib.base.threads import fixed

from .chapters import Chapter, all_chapters, video_times
from .references import cited_papers
from .repository import with_links
from .tables import aligned

PACKAGE = "lecture_lib"
# A misspelt directive: in another case, with other spaces, or further down in the cell.
MEANT = re.compile(r"(?mi)^[ \t]*#+[ \t]*(?:\|.*|exports?)[ \t]*$")
DIRECTIVE = re.compile(r"\A#\| export(?: +(?P<module>[a-z]\w*))?(?:: *(?P<title>\S.*?))? *\n")
QUICK_CALL = re.compile(r"range|partial|torch\.(arange|combinations)|\w+Config")  # a constant may make these
IMPORT = ast.Import | ast.ImportFrom
TIDYING = [  # ruff sorts imports and `__all__`, drops unused imports, and tells undefined names (F821)
    "--select=I,F401,F811,RUF022,F821",
    "--config=lint.isort.split-on-trailing-comma=false",
    "--ignore-noqa",
]


@dataclass(frozen=True)
class Cell:
    """A code cell: where it stands, what it says, and the module that it is exported to, if any."""

    chapter: Chapter
    index: int  # 0-based, among all cells
    source: str  # without the directive
    section: str  # the last `##` heading above it
    module: str | None
    title: str | None  # of the module, where the directive gives one

    def __str__(self) -> str:
        return f"{self.chapter.path.parent.name}/{self.chapter.path.name}, cell {self.index}"

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed source; CourseError if it isn't plain Python."""
        try:
            return ast.parse(self.source)
        except SyntaxError as error:
            raise CourseError(
                f"{self}: not plain Python, line {error.lineno}: {error.msg}; "
                "use no magics or shell lines, they cannot be promoted or checked"
            ) from error

    @cached_property
    def imports(self) -> list[ast.stmt]:
        return [statement for statement in self.tree.body if isinstance(statement, IMPORT)]

    @cached_property
    def names(self) -> list[str]:
        """The names that its top level defines or assigns."""
        return [name for statement in self.tree.body for name in bound_names(statement)]


@dataclass(frozen=True)
class Module:
    """A module to be written, and all the code cells of the notebook that exports it."""

    name: str
    notebook: list[Cell]

    @property
    def chapter(self) -> Chapter:
        return self.notebook[0].chapter

    @cached_property
    def cells(self) -> list[Cell]:
        return [cell for cell in self.notebook if cell.module == self.name]

    @cached_property
    def names(self) -> list[str]:
        return [name for cell in self.cells for name in cell.names]

    @property
    def public_names(self) -> list[str]:
        return list(filter(is_public, self.names))

    @property
    def title(self) -> str:
        """What the module holds: the title that a directive gives it, or else its chapter's."""
        given = next((cell.title for cell in self.cells if cell.title), None)
        if not given and self.name != self.chapter.module:
            raise CourseError(
                f"{self.cells[0]}: {PACKAGE}/{self.name}.py has no title; "
                f"say in plain words what it holds: `#| export {self.name}: Title`"
            )
        return given or self.chapter.title.removeprefix(f"{self.chapter.label}. ")

    def cell_with(self, line: str) -> Cell:
        """The exported cell that a line of the module comes from; the first, if it stands in none."""
        return next((cell for cell in self.cells if line in cell.source.splitlines()), self.cells[0])

    @property
    def section(self) -> str:
        """The heading under which most of its cells stand; none if they make up a whole chapter."""
        sections = Counter(cell.section for cell in self.cells)
        whole_chapter = self.name == self.chapter.module and len(sections) > 1
        return "" if whole_chapter else sections.most_common(1)[0][0]


def bound_names(statement: ast.stmt) -> list[str]:
    """The names that a top-level definition or assignment binds; variables of comprehensions don't count."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        nodes = (node for target in targets for node in ast.walk(target))
        return [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    return []


def is_public(name: str) -> bool:
    """Whether other modules may import it: `main` is for `python -m`, `_name` for its own module."""
    return name != "main" and not name.startswith("_")


# ---------------------------------------------------------------- reading the notebooks


def read_cells(chapter: Chapter) -> list[Cell]:
    """The code cells of a chapter in order, each with its export directive taken off and read."""
    cells, section = [], ""
    for index, raw in enumerate(chapter.notebook.cells):
        if raw.cell_type == "markdown":
            section = [section, *re.findall(r"^## +(.+)$", raw.source, flags=re.MULTILINE)][-1]
        elif raw.cell_type == "code":
            directive = DIRECTIVE.match(raw.source)
            if not directive and (meant := MEANT.search(raw.source)):
                raise CourseError(
                    f"{chapter.path.name}, cell {index}: has {meant[0]!r}; expected `#| export`, "
                    "`#| export module` or `#| export module: Title`, as the first line"
                )
            source = raw.source[directive.end() :] if directive else raw.source
            module = (directive["module"] or chapter.module) if directive else None
            cells.append(Cell(chapter, index, source, section, module, directive and directive["title"]))
    return cells


def read_modules(notebooks: Path = NOTEBOOKS) -> dict[str, Module]:
    """Every module that the notebooks in a folder export; CourseError for what cannot be promoted."""
    return modules_of([read_cells(chapter) for chapter in all_chapters(notebooks)])


def modules_of(notebooks: list[list[Cell]]) -> dict[str, Module]:
    """The modules, checked: one source notebook each, no name exported twice, nothing that runs on import."""
    modules: dict[str, Module] = {}
    owners: dict[str, Cell] = {}
    for notebook in notebooks:
        for cell in (cell for cell in notebook if cell.module):
            module = modules.setdefault(cell.module, Module(cell.module, notebook))
            if module.notebook is not notebook:
                raise CourseError(
                    f"{cell}: exports to {PACKAGE}/{module.name}.py, whose source is "
                    f"{module.chapter.path.name}; a module has one notebook as its source"
                )
            only_defines(cell)
            for name in filter(is_public, cell.names):
                if name in owners:
                    raise CourseError(
                        f"{cell}: exports {name!r}, which {owners[name]} exports already; rename one"
                    )
                owners[name] = cell
    return modules


def only_defines(cell: Cell) -> None:
    """Refuse an exported cell that would run something on import, or that mixes imports and definitions."""
    for statement in cell.tree.body:
        if not isinstance(statement, IMPORT | ast.FunctionDef | ast.ClassDef) and not is_constant(statement):
            raise CourseError(
                f"{cell}: an exported cell may only import, define functions and classes, and name "
                "UPPER_CASE constants that call nothing but range, partial, torch.arange, torch.combinations "
                f"or a Config; this would run on import: {ast.unparse(statement).splitlines()[0]}"
            )
    if 0 < len(cell.imports) < len(cell.tree.body):
        raise CourseError(
            f"{cell}: an exported cell mixes imports and definitions; put the imports in a cell of their own"
        )


def is_constant(statement: ast.stmt) -> bool:
    """Whether a statement only gives UPPER_CASE names to what takes no work to make."""
    names = bound_names(statement)
    calls = (ast.unparse(node.func) for node in ast.walk(statement) if isinstance(node, ast.Call))
    return bool(names) and all(map(str.isupper, names)) and all(map(QUICK_CALL.fullmatch, calls))


# ---------------------------------------------------------------- writing the modules


def rendered(modules: dict[str, Module]) -> dict[str, str]:
    """Name -> text of each module's file, its imports chosen and its layout set by ruff.

    Raises CourseError for each name that a module reads and neither defines nor imports.
    """
    with TemporaryDirectory() as folder:
        package = Path(folder) / PACKAGE
        paths = {name: package / f"{name}.py" for name in modules}
        for name, path in paths.items():
            write_text(path, draft(modules[name], modules))
        left = ruff(f"check --fix --output-format=json {' '.join(TIDYING)}", package)
        problems = [refusal(modules[Path(each["filename"]).stem], each) for each in json.loads(left)]
        if problems:
            raise CourseError("\n".join(dict.fromkeys(problems)))
        ruff("format --quiet", package)
        return {name: path.read_text(encoding="utf-8") for name, path in paths.items()}


def draft(module: Module, modules: dict[str, Module]) -> str:
    """The module with all imports that it may need: its notebook's, and those from the notebook's modules."""
    imports = [ast.unparse(line) for cell in module.notebook for line in cell.imports]
    for other in modules.values():
        if other.notebook is module.notebook and other is not module and other.public_names:
            imports.append(f"from {PACKAGE}.{other.name} import {', '.join(other.public_names)}")
    parts = [
        docstring(module),
        *imports,
        f"__all__ = {module.public_names}",
        *(cell.source for cell in module.cells if not cell.imports),
    ]
    if "main" in module.names:
        parts.append('if __name__ == "__main__":\n    main()')
    return "\n\n".join(parts) + "\n"


def docstring(module: Module) -> str:
    """Title, where the module comes from (notebook, section, time in the video), and the papers it cites."""
    section = re.sub(r" \(\[.*", "", module.section)  # without the link to the video
    times = video_times(module.section) or module.chapter.video_times
    source = f"From notebooks/{module.chapter.path.name}"
    cited = cited_papers("\n".join(cell.source for cell in module.cells))
    papers = [f"{name}: {url}" for name, url in cited.items()]
    lines = [
        f"{module.title.rstrip('.')}.\n",
        f'{source}, section "{section}".' if section else f"{source}.",
        *([f"Video {times}."] if times else []),
        "Written by `lecture promote`: edit the notebook, not this file.\n",
        *([*papers, ""] if papers else []),
    ]
    return '"""{}"""'.format("\n".join(lines))


def refusal(module: Module, complaint: dict) -> str:
    """Ruff's complaint about a drafted module, as a complaint about the cell that the line comes from."""
    start, end = complaint["location"], complaint["end_location"]
    line = Path(complaint["filename"]).read_text(encoding="utf-8").splitlines()[start["row"] - 1]
    cell = module.cell_with(line)
    if complaint["code"] != "F821":
        return f"{cell}: {complaint['message']}: {line}"
    name = line[start["column"] - 1 : end["column"] - 1]
    setters = [f"{other} sets it without exporting it" for other in module.notebook if name in other.names]
    source = setters[0] if setters else "the notebook does not define it at top level"
    return (
        f"{cell}: exports code that reads {name!r}, which it neither defines nor imports ({source}); "
        "pass it as an argument, export it, or import it from an earlier chapter"
    )


def ruff(arguments: str, package: Path) -> str:
    """Run ruff with the project's settings over a folder of modules; returns what it prints."""
    settings = [f"--config={ROOT / 'pyproject.toml'}", "--no-cache"]
    command = [sys.executable, "-m", "ruff", *arguments.split(), *settings, package.name]
    done = subprocess.run(command, capture_output=True, text=True, cwd=package.parent)
    if done.returncode > 1:  # 1 says that it found something
        raise CourseError(f"ruff {arguments} failed on the promoted code:\n{done.stderr}")
    return done.stdout


def generated(modules: dict[str, Module], library: Path) -> dict[Path, str]:
    """Path -> text of every file that promotion writes: the modules, two tables of them, derived links."""
    chapters, places = (library.parent / "docs" / name for name in ("chapters.md", "places.md"))
    return {
        **{library / f"{name}.py": text for name, text in rendered(modules).items()},
        library / "__init__.py": contents(modules),
        chapters: with_modules(chapters.read_text(encoding="utf-8"), modules),
        places: with_links(places.read_text(encoding="utf-8")),
    }


def contents(modules: dict[str, Module]) -> str:
    """The package's `__init__`: a table of the modules in order, and the start with one thread."""
    rows, stem = [("notebook", "module", "what it holds")], None
    for module in modules.values():
        rows.append((module.chapter.stem if module.chapter.stem != stem else "", module.name, module.title))
        stem = module.chapter.stem
    return (
        '"""The library of the course, promoted from its notebooks. Written by `lecture promote`.\n\n'
        f"{aligned(rows)}\n\n"
        "Written by hand are `base`, which every chapter may use, and `course`, which runs them all.\n"
        '"""\n\n'
        f"from {PACKAGE}.base.threads import begin_with_one\n\nbegin_with_one()\n"
    )


def with_modules(page: str, modules: dict[str, Module]) -> str:
    """The page's text with each chapter's modules in the last column of its table of chapters."""

    def row(found: re.Match) -> str:
        names = [name for name, module in modules.items() if module.chapter.stem == found["stem"]]
        links = ", ".join(f"[{name}](../{PACKAGE}/{name}.py)" for name in names)
        return f"{found['row']} {links} |"

    return re.sub(r"(?m)^(?P<row>\|.*\(\.\./notebooks/(?P<stem>\w+)\.ipynb\).*\|)[^|\n]*\|$", row, page)


# ---------------------------------------------------------------- promote and check


def promote(notebooks: Path = NOTEBOOKS, library: Path = LIBRARY) -> list[Path]:
    """Write every exported module to `library`, and the tables of them; returns the files that changed."""
    texts = generated(read_modules(notebooks), library)
    changed = [path for path, text in texts.items() if read(path) != text]
    for path in changed:
        write_text(path, texts[path])
    return changed


def read(path: Path) -> str | None:
    """The file's text, None if there is no such file."""
    return path.read_text(encoding="utf-8") if path.exists() else None


def check(notebooks: Path = NOTEBOOKS, library: Path = LIBRARY) -> list[str]:
    """What is wrong between notebooks and library, a message each; an empty list when all is well.

    The modules are imported only when nothing else is wrong: it takes longest.
    """
    try:
        cells = [read_cells(chapter) for chapter in all_chapters(notebooks)]
        modules = modules_of(cells)
        problems = later_imports(cells, modules) + differences(modules, library) + orphans(modules, library)
        return problems or failed_imports(modules, library)
    except CourseError as error:  # what keeps the modules from being written at all
        return [str(error)]


def differences(modules: dict[str, Module], library: Path) -> list[str]:
    """The files that differ from what the notebooks export, each with its differing lines."""
    problems = []
    for path, expected in generated(modules, library).items():
        name, found, module = path.relative_to(library.parent), read(path), modules.get(path.stem)
        if found is None:
            problems.append(f"{name} is missing; run `lecture promote`")
        elif found != expected:
            old, new = found.splitlines(), expected.splitlines()
            first = next((line for line, other in zip(new, old, strict=False) if line != other), new[-1])
            source = module.cell_with(first) if module else "the notebooks"
            lines = difflib.unified_diff(old, new, str(name), "promoted", lineterm="")
            advice = "edit the notebook, then run `lecture promote`"
            problems.append("\n".join([f"{name} differs from {source}; {advice}", *lines]))
    return problems


def orphans(modules: dict[str, Module], library: Path) -> list[str]:
    """Modules in the library's folder that no notebook exports."""
    return [
        f"{PACKAGE}/{path.name}: no notebook exports to it; delete it, or mark a cell `#| export {path.stem}`"
        for path in sorted(library.glob("*.py"))
        if path.stem not in modules and path.stem != "__init__"
    ]


def later_imports(notebooks: list[list[Cell]], modules: dict[str, Module]) -> list[str]:
    """Imports of a module whose source is this chapter itself or a later one."""
    return [
        f"{cell}: imports {PACKAGE}.{name}, whose source is {modules[name].chapter.path.name}; "
        "a chapter imports earlier chapters only"
        for cell in chain.from_iterable(notebooks)
        for name in sorted(imported_modules(cell.tree) & modules.keys())
        if modules[name].chapter.label >= cell.chapter.label
    ]


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


# Imports each module in a process of its own, forked from one that has imported torch alone.
# Torch takes seconds to import and seconds to take down: hence the fork and the abrupt end.
IMPORTER = """
import importlib, os, sys, torch, traceback
folder, *names = sys.argv[1:]
for name in names:
    path = os.path.join(folder, name)
    if os.fork() == 0:
        said = os.open(path, os.O_CREAT | os.O_WRONLY)
        os.dup2(said, 1), os.dup2(said, 2)
        try:
            importlib.import_module(name)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(0)
    status = os.wait()[1]
    if status:
        open(path, "a").write(f"ended with status {status}")
"""


def failed_imports(modules: dict[str, Module], library: Path) -> list[str]:
    """Import each module in a fresh process: it must succeed and print nothing."""
    with TemporaryDirectory() as folder:
        names = [f"{library.name}.{name}" for name in modules]
        subprocess.run(
            [sys.executable, "-c", IMPORTER, folder, *names],
            cwd=library.parent,
            env={**os.environ, **fixed(1)},  # a process that forks must have no threads
            check=True,
        )
        said = {name: (Path(folder) / f"{library.name}.{name}").read_text().rstrip() for name in modules}
    return [
        f"{PACKAGE}/{name}.py: does not import quietly in a clean process:\n{text}"
        for name, text in said.items()
        if text
    ]
