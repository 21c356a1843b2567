"""Where things live in a clone of the project, whatever the working directory."""

from pathlib import Path

from .errors import CourseError

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
SOLUTIONS = NOTEBOOKS / "solutions"  # the exercises solved, in notebooks of the same names
MINE = ROOT / "my_notebooks"  # a learner's copies to work in: git-ignored
LIBRARY = ROOT / "lecture_lib"
DATA = ROOT / "data"
OUT = ROOT / "out"  # executed copies, pictures, recorded results: git-ignored
SHIPPED = {  # the trained models that come with the course, without suffix
    name: DATA / "checkpoint" / name for name in ("full", "small", "speedrun")
}


def check_project(root: Path = ROOT) -> None:
    """Raise CourseError if the library was copied, or installed, without the project that it belongs to."""
    missing = [name for name in ("notebooks", "data/errata.toml") if not (root / name).exists()]
    if missing:
        raise CourseError(
            f"{root} has no {missing[0]}: lecture_lib works inside its project; "
            "clone the whole project, and run `make setup` there"
        )
