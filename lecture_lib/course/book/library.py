"""The library's pages: what each module holds, from its source, without importing it."""

import ast
import re
from collections.abc import Iterator

from lecture_lib.base.paths import LIBRARY, ROOT
from lecture_lib.course.chapters import VIDEO_TIME
from lecture_lib.course.promotion import PACKAGE, is_public, read_modules
from lecture_lib.course.references import CITATION, read_references
from lecture_lib.course.tables import markdown

VIDEO = "https://youtu.be/kCc8FmEb1nY?t="
GROUND = "The ground floor, written by hand, on which every chapter stands."
ROOF = "The roof, written by hand: command line, execution, promotion, checks, plots, the book itself."
Function = ast.FunctionDef
Definition = ast.FunctionDef | ast.ClassDef


def library_pages() -> dict[str, str]:
    """Name -> text of a page for each module, and of the pages that list them."""
    modules = read_modules()
    base, course = hand_written("base"), hand_written("course")
    lists = {
        "library.md": library_list(modules),
        "library-base.md": f"# The ground floor\n\n{GROUND}\n\n{toctree(base)}",
        "library-course.md": f"# The roof\n\n{ROOF}\n\n{toctree(course)}",
    }
    return lists | {f"library/{name}.md": module_page(name) for name in [*modules, *base, *course]}


def hand_written(package: str) -> list[str]:
    """The modules of a package of the library, such as `base.files`, by name."""
    paths = sorted(path for path in (LIBRARY / package).rglob("*.py") if path.stem != "__init__")
    return [".".join(path.relative_to(LIBRARY).with_suffix("").parts) for path in paths]


def library_list(modules: dict) -> str:
    """The page of the promoted modules: a table in the order of the chapters, each with what it holds."""
    rows = [("chapter", "module", "what it holds")]
    for name, module in modules.items():
        chapter = f"[{module.chapter.label}](/notebooks/{module.chapter.path.name})"
        rows.append((chapter, f"[{name}](/library/{name}.md)", module.title))
    intro = "Each module is promoted from its chapter: the cells that begin with `#| export`."
    return f"# The chapters' library\n\n{intro}\n\n{markdown(rows)}\n\n{toctree(modules, hidden=True)}"


def toctree(names, hidden: bool = False) -> str:
    """A list of modules' pages, for the page and the sidebar, or the sidebar alone."""
    options = ":hidden:\n" if hidden else ""
    return f"```{{toctree}}\n{options}\n" + "\n".join(f"library/{name}" for name in names) + "\n```\n"


def module_page(name: str) -> str:
    """The page of one module, such as `base.files`: its docstring, what is public in it, its source."""
    path = LIBRARY / f"{name.replace('.', '/')}.py"
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    parts = [
        f"# {name}\n",
        f"```{{py:module}} {PACKAGE}.{name}\n```\n",
        described(ast.get_docstring(tree) or ""),
        *(entry for node in tree.body for entry in entries(node, source)),
        f"## Source\n\n`{path.relative_to(ROOT)}`\n\n````python\n{source}````\n",
    ]
    return "\n".join(parts)


def entries(node: ast.stmt, source: str) -> Iterator[str]:
    """The directives that describe a module's public definition or constant."""
    if isinstance(node, Definition) and is_public(node.name):
        yield class_entry(node, source) if isinstance(node, ast.ClassDef) else function_entry(node)
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        yield from (constant_entry(name, node, source) for name in constants(node))


def constants(node: ast.Assign | ast.AnnAssign) -> list[str]:
    """The UPPER_CASE names that a statement assigns."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    names = [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
    return [name for name in names if re.fullmatch(r"[A-Z][A-Z0-9_]*", name)]


def constant_entry(name: str, node: ast.stmt, source: str) -> str:
    """A constant with its value, if that is short, and the comment beside it."""
    value = ast.unparse(node.value) if node.value else ""
    options = f":value: '{value}'\n" if len(value) <= 60 and "'" not in value else ""
    return directive("data", name, f"{options}\n{comment(node, source)}")


def function_entry(node: Function, kind: str = "function", method: bool = False) -> str:
    """A function or method: its signature as written, and its docstring."""
    arguments = ast.unparse(node.args)
    if method and not decorated(node, "staticmethod"):
        arguments = arguments.partition(",")[2].strip()
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return directive(kind, f"{node.name}({arguments}){returns}", described(ast.get_docstring(node) or ""))


def class_entry(node: ast.ClassDef, source: str) -> str:
    """A class: how it is made, its docstring, its fields with their comments, its public methods."""
    parts = [f"Bases: `{ast.unparse(base)}`\n" for base in node.bases]
    parts.append(described(ast.get_docstring(node) or ""))
    for member in node.body:
        if isinstance(member, ast.AnnAssign):
            parts.append(field_entry(member, source))
        elif isinstance(member, Function) and is_public(member.name) and ast.get_docstring(member):
            kind = "property" if decorated(member, "property", "cached_property") else "method"
            parts.append(property_entry(member) if kind == "property" else function_entry(member, kind, True))
    return directive("class", f"{node.name}{made_by(node)}", "\n".join(parts), fence="`````")


def made_by(node: ast.ClassDef) -> str:
    """The arguments that make an object of the class, in parentheses; empty if it inherits them."""
    for member in node.body:
        if isinstance(member, Function) and member.name == "__init__":
            return f"({ast.unparse(member.args).partition(',')[2].strip()})"
    fields = [member for member in node.body if isinstance(member, ast.AnnAssign)]
    return f"({', '.join(ast.unparse(field) for field in fields)})" if decorated(node, "dataclass") else ""


def decorated(node: Definition, *names: str) -> bool:
    """Whether a definition has one of the decorators."""
    return any(ast.unparse(decorator).partition("(")[0] in names for decorator in node.decorator_list)


def field_entry(node: ast.AnnAssign, source: str) -> str:
    """A dataclass's field with its type and the comment beside it."""
    return directive(
        "attribute", node.target.id, f":type: {ast.unparse(node.annotation)}\n\n{comment(node, source)}"
    )


def property_entry(node: Function) -> str:
    """A property with its type and docstring."""
    kind = f":type: {ast.unparse(node.returns)}\n" if node.returns else ""
    return directive("property", node.name, f"{kind}\n{described(ast.get_docstring(node))}")


def comment(node: ast.stmt, source: str) -> str:
    """What stands behind a statement as a comment on its last line."""
    line = source.splitlines()[node.end_lineno - 1][node.end_col_offset :]
    return described(line.partition("#")[2].strip())


def directive(kind: str, argument: str, body: str, fence: str = "````") -> str:
    """A description of something of Python's, for Sphinx."""
    return f"{fence}{{py:{kind}}} {argument}\n{body.strip(chr(10))}\n{fence}\n"


# ---------------------------------------------------------------- docstrings


def described(docstring: str) -> str:
    """A docstring as Markdown: times of the video, papers and notebooks become links, except within code."""
    lines = (line for line in docstring.splitlines() if not line.startswith("Written by `lecture promote`"))
    parts = re.split(r"(`[^`]+`)", "\n".join(lines))
    return "".join(part if part.startswith("`") else linked(part) for part in parts)


def linked(text: str) -> str:
    """The text with links for the papers, notebooks and times of the video that it names."""
    text = CITATION.sub(citation_link, text)
    text = re.sub(r"(?m)^(\[.+\]\(\S+\)): https?://\S+$", r"- \1", text)  # a module's list of its papers
    text = re.sub(r"notebooks/(\d\w+)\.ipynb", r"[\1](/notebooks/\1.ipynb)", text)
    return re.sub(r"(?i)(?<=video )[\d:, ]+\d", lambda found: VIDEO_TIME.sub(video_link, found[0]), text)


def video_link(found: re.Match) -> str:
    """A time of the video as a link to that second of it."""
    seconds = 0
    for part in found[0].split(":"):
        seconds = 60 * seconds + int(part)
    return f"[{found[0]}]({VIDEO}{seconds})"


def citation_link(found: re.Match) -> str:
    """A citation as a link to its paper, if it is in the list of references."""
    url = read_references().get(f"{found[1]} {found[2]}")
    return f"[{found[0]}]({url})" if url else found[0]
