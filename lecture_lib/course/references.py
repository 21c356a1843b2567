"""The papers that the course cites: one list, docs/references.md, and a link wherever one is named."""

import re
from functools import cache
from pathlib import Path

from nbformat import NotebookNode

from lecture_lib.base.paths import ROOT

REFERENCES = ROOT / "docs" / "references.md"
ENTRY = re.compile(r"^- (?P<name>.+ \d{4}): \[.+\]\((?P<url>\S+)\)$", re.MULTILINE)
NAME = r"[A-Z][\w'-]+"
CITATION = re.compile(rf"\b({NAME}(?: et al\.| and (?:De )?{NAME}| Team)?),? \(?((?:19|20)\d\d)\b")
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]*)\)")


@cache
def read_references(path: Path = REFERENCES) -> dict[str, str]:
    """The address of each paper by the name that it is cited by, such as `Vaswani et al. 2017`."""
    return {entry["name"]: entry["url"] for entry in ENTRY.finditer(path.read_text(encoding="utf-8"))}


def cited_papers(text: str) -> dict[str, str | None]:
    """The papers that `text` cites, in order, with their addresses, None for one that isn't in the list.

    A name and a year are a citation if they say so (two authors, `et al.`) or if the list has that paper.
    """
    known = read_references()
    found = (f"{names} {year}" for names, year in CITATION.findall(" ".join(text.split())))
    return {name: known.get(name) for name in found if name in known or re.search(r" et al\. | and ", name)}


def citation_problems(cell: NotebookNode) -> list[str]:
    """What is wrong with a cell's citations: a paper that isn't in the list or, in prose, isn't linked."""
    text = " ".join(cell.source.split())
    linked = {name: url for words, url in LINK.findall(text) for name in cited_papers(words)}
    plain = cited_papers(LINK.sub("", text)) if cell.cell_type == "markdown" else {}
    found = []
    for name, url in cited_papers(LINK.sub(r"\1", text)).items():
        if url is None:
            found.append(f"cites {name}, which docs/references.md doesn't list; add it there")
        elif name in plain or linked.get(name, url) != url:
            found.append(f"cites {name} without a link to {url}")
    return found
