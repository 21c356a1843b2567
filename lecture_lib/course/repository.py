"""Where the project is published, if it is: said once, in pyproject.toml, under [project.urls]."""

import tomllib
from functools import cache
from pathlib import Path

from lecture_lib.base.paths import ROOT

BRANCH = "main"


@cache
def repository(pyproject: Path = ROOT / "pyproject.toml") -> str | None:
    """The address of the project's repository on GitHub; None while pyproject.toml names none."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository", "").rstrip("/") or None


def file_url(path: Path) -> str | None:
    """Where the repository shows a file or folder of the project; None while it is unnamed."""
    base = repository()
    return base and f"{base}/blob/{BRANCH}/{path.relative_to(ROOT).as_posix()}"
