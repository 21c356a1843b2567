"""Links and mentions of chapters: all lead to a notebook, and a section of it, that exist."""

import re
from functools import cache
from pathlib import Path

import pytest

from lecture_lib.base.paths import NOTEBOOKS, ROOT
from lecture_lib.course.chapters import all_chapters

CHAPTERS = {chapter.path.name: chapter for chapter in all_chapters()}
LABELS = {chapter.label for chapter in CHAPTERS.values()}
LINK = re.compile(r"\]\((?:notebooks/|\.\./notebooks/)?(\d\d[a-z]?_\w+\.ipynb(?:#[^)\s]*)?)\)")
HEADING = re.compile(r"^#+ (.*)$", flags=re.MULTILINE)
MENTION = re.compile(r"\b[Cc]hapters? (\d\d[a-z]?)\b(?:(?:,| and| to| or) (\d\d[a-z]?)\b)?")
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
MADE = {"library.md"}  # pages that only the book has
CELLS = {
    name: "\n".join(cell.source for cell in chapter.notebook.cells) for name, chapter in CHAPTERS.items()
}
TEXTS = {page.name: page.read_text(encoding="utf-8") for page in PAGES} | CELLS
CODE = [*ROOT.glob("lecture_lib/**/*.py"), *ROOT.glob("tests/*.py")]


@cache
def anchors(path: Path) -> set[str]:
    """What a page's headings are called in links: a notebook's as JupyterLab does, Markdown's as GitHub."""
    if path.suffix == ".md":
        text = path.read_text(encoding="utf-8")
        own = re.findall(r'<a id="([^"]+)">', text)
        return {*own, *(heading.lower().replace(" ", "-") for heading in HEADING.findall(text))}
    headings = HEADING.findall(CHAPTERS[path.name].prose)
    shown = (re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).replace("`", "") for heading in headings)
    return {heading.replace(" ", "-") for heading in shown}


def assert_leads_somewhere(link: str, folder: Path) -> None:
    """A link from a page in the folder leads to a file, and a section of it, that exist."""
    file, _, anchor = link.partition("#")
    target = (folder / file).resolve()
    assert target.exists(), link
    assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("chapter", CHAPTERS.values(), ids=lambda chapter: chapter.stem)
def test_links_within_the_project_lead_somewhere(chapter):
    links = [link for link in re.findall(r"\]\(([^()\s]+)\)", chapter.prose) if not link.startswith("http")]
    assert links
    for link in links:
        assert_leads_somewhere(link, NOTEBOOKS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_pages_lead_somewhere(page):
    for link in re.findall(r"\]\(([^()\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in link and link not in MADE:
            assert_leads_somewhere(link, page.parent)


@pytest.mark.parametrize("name", TEXTS)
def test_links_to_chapters_lead_to_sections_that_exist(name):
    for link in LINK.findall(TEXTS[name]):
        assert_leads_somewhere(link, NOTEBOOKS)


def test_chapters_that_are_mentioned_exist():
    texts = TEXTS | {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in CODE}
    for name, text in texts.items():
        mentioned = {label for labels in MENTION.findall(text) for label in labels if label}
        assert mentioned <= LABELS, f"{name} mentions chapter {', '.join(sorted(mentioned - LABELS))}"
