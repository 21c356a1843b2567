"""Where the project is published, if it is: said once, in pyproject.toml, under [project.urls]."""

import re
from functools import cache
from pathlib import Path

from lecture_lib.base.files import read_toml
from lecture_lib.base.paths import ROOT

BRANCH = "main"
FIRST = "notebooks/00_intro.ipynb"
LINKS = re.compile(r"(?s)(?<=<!-- links: derived from pyproject.toml -->\n).*?(?=<!-- end -->)")


@cache
def repository(pyproject: Path = ROOT / "pyproject.toml") -> str | None:
    """The address of the project's repository on GitHub; None while pyproject.toml names none."""
    project = read_toml(pyproject)["project"]
    return project.get("urls", {}).get("Repository", "").rstrip("/") or None


def file_url(path: Path) -> str | None:
    """Where the repository shows a file or folder of the project; None while it is unnamed."""
    base = repository()
    return base and f"{base}/blob/{BRANCH}/{path.relative_to(ROOT).as_posix()}"


def with_links(page: str) -> str:
    """The page's text with links to where the course runs, between its marks; none while it is unnamed."""
    base = repository()
    return LINKS.sub(f"\n{places(base)}\n\n" if base else "", page)


def places(base: str) -> str:
    """Links, in Markdown, to the book of the repository at `base` and to machines that open a chapter."""
    owner_and_name = base.removeprefix("https://github.com/")
    owner, name = owner_and_name.split("/")
    links = {
        "The book": f"https://{owner.lower()}.github.io/{name}/",
        "A codespace": f"https://codespaces.new/{owner_and_name}",
        "Binder": f"https://mybinder.org/v2/gh/{owner_and_name}/{BRANCH}?labpath={FIRST.replace('/', '%2F')}",
        "Colab": f"https://colab.research.google.com/github/{owner_and_name}/blob/{BRANCH}/{FIRST}",
    }
    return "\n".join(f"- [{place}]({address})" for place, address in links.items())
