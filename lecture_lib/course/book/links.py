"""Links of notebooks and pages as the book needs them: to its pages, to pictures, or away from it."""

import re
from functools import cache
from pathlib import Path

from lecture_lib.base.paths import LIBRARY, ROOT
from lecture_lib.course.repository import file_url

LINK = re.compile(r"(?P<mark>!?)\[(?P<words>[^\]]*)\]\((?P<target>[^()\s]+)\)")
PICTURES = (".png",)
FRONT = "/index.md"


def in_book(text: str, folder: Path) -> str:
    """Markdown that stands in `folder` of the project, with its links as the book needs them."""
    return LINK.sub(lambda link: changed(link, folder), text)


def changed(link: re.Match, folder: Path) -> str:
    """One link: to a page of the book if it has one for the target, else to the repository, if it's named."""
    target = link["target"]
    if "://" in target or target.startswith("#"):
        return link[0]
    name, _, anchor = target.partition("#")
    path = (folder / name).resolve()
    page = f"/{path.relative_to(ROOT)}" if path.suffix in PICTURES else page_for(path)
    if page and anchor and page != FRONT:  # the front page has other sections than the README
        page += f"#{book_anchor(anchor)}"
    address = page or file_url(path)
    return f"{link['mark']}[{link['words']}]({address})" if address else link["words"]


@cache
def page_for(path: Path) -> str | None:
    """The source of the page that shows a file of the project, from the book's root; None if none does."""
    name = path.relative_to(ROOT)
    if path.suffix == ".ipynb":
        return f"/{name}"
    if path == LIBRARY / "__init__.py":
        return "/library.md"
    if path.suffix == ".py" and path.is_relative_to(LIBRARY):
        return f"/library/{'.'.join(path.relative_to(LIBRARY).with_suffix('').parts)}.md"
    if path.suffix == ".md" and name.parent.name == "docs":
        return f"/{name.name}"
    return FRONT if str(name) == "README.md" else None


def book_anchor(anchor: str) -> str:
    """The anchor of a heading in the book, from JupyterLab's or GitHub's: `4.-A-good-start`."""
    return re.sub(r"[^\w-]", "", anchor.lower())


def pictures(page: Path) -> list[Path]:
    """The pictures that a Markdown file shows."""
    found = (link for link in LINK.finditer(page.read_text(encoding="utf-8")) if link["mark"])
    return [(page.parent / link["target"]).resolve() for link in found]
