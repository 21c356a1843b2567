"""The floors of the library: ground, chapters in order, roof. Imports only ever point down."""

import ast
from pathlib import Path

import pytest

from lecture_lib.base.paths import LIBRARY
from lecture_lib.course.promotion import read_modules

GROUND, ROOF = 0, 1_000  # the chapters stand between them, by number
CHAPTERS = {name: module.chapter.label for name, module in read_modules().items()}
LABELS = sorted(set(CHAPTERS.values()))
FILES = sorted(path for path in LIBRARY.rglob("*.py") if path.parent != LIBRARY or path.stem in CHAPTERS)


def floor(module: str) -> int:
    """The floor of a module of the library, by its name without the package's."""
    room = module.split(".")[0]
    if room in CHAPTERS:
        return 1 + LABELS.index(CHAPTERS[room])
    return {"base": GROUND, "course": ROOF}[room]


def imported(path: Path) -> set[str]:
    """The modules of the library that a file imports, anywhere in it, without the package's name."""
    package = path.relative_to(LIBRARY.parent).parent.parts
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            names.update(
                [module, *(f"{module}.{alias.name}" for alias in node.names if module == "lecture_lib")]
            )
    return {name.removeprefix("lecture_lib.") for name in names if name.startswith("lecture_lib.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_imports_point_down(path):
    here = floor(".".join(path.relative_to(LIBRARY).with_suffix("").parts))
    assert {name for name in imported(path) if floor(name) > here} == set()


def test_an_import_that_points_up_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr("test_house.LIBRARY", tmp_path / "lecture_lib")
    path = tmp_path / "lecture_lib" / "base" / "device.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "from lecture_lib import dpo\nfrom ..gpt import GPT\nfrom .files import write_text\n"
        "def f():\n    import lecture_lib.course.cli\n"
    )
    assert imported(path) == {"dpo", "gpt", "base.files", "course.cli"}
    assert floor("base.files") < floor("averaging") < floor("gpt") < floor("course.experiments.races")
