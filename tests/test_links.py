"""Links and mentions of chapters: all lead to a notebook, and a section of it, that exist."""

import re

import pytest

from lecture_lib.base.paths import NOTEBOOKS, ROOT
from lecture_lib.course.chapters import all_chapters

CHAPTERS = {chapter.path.name: chapter for chapter in all_chapters()}
LABELS = {chapter.label for chapter in CHAPTERS.values()}
LINK = re.compile(r"\]\((?:notebooks/|\.\./notebooks/)?(\d\d[a-z]?_\w+\.ipynb)(?:#([^)\s]*))?\)")
MENTION = re.compile(r"\b[Cc]hapters? (\d\d[a-z]?)\b(?:(?:,| and| to| or) (\d\d[a-z]?)\b)?")
TEXTS = {
    path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", ROOT / "CHANGELOG.md")
} | {name: "\n".join(cell.source for cell in chapter.notebook.cells) for name, chapter in CHAPTERS.items()}
CODE = [*ROOT.glob("lecture_lib/**/*.py"), *ROOT.glob("tests/*.py")]


def sections(name: str) -> set[str]:
    """The anchors of a notebook's headings, as JupyterLab makes them."""
    headings = re.findall(r"^#+ +(.+)$", TEXTS[name], flags=re.MULTILINE)
    shown = (
        re.sub(r"\[([^\]]*)\]\([^)]*\)|`", r"\1", heading) for heading in headings
    )  # links' words, no quotes
    return {heading.strip().replace(" ", "-") for heading in shown}


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_to_notebooks_and_sections_that_exist(name):
    for target, anchor in LINK.findall(TEXTS[name]):
        assert (NOTEBOOKS / target).is_file(), f"{name} links to {target}"
        assert not anchor or anchor in sections(target), f"{name} links to {target}#{anchor}"


def test_chapters_that_are_mentioned_exist():
    texts = TEXTS | {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in CODE}
    for name, text in texts.items():
        mentioned = {label for labels in MENTION.findall(text) for label in labels if label}
        assert mentioned <= LABELS, f"{name} mentions chapter {', '.join(sorted(mentioned - LABELS))}"
