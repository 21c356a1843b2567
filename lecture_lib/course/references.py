"""The papers that the course cites: one list, docs/references.md, and a link wherever one is named."""

import re
from pathlib import Path

from lecture_lib.base.paths import ROOT

REFERENCES = ROOT / "docs" / "references.md"
ENTRY = re.compile(r"^- (?P<name>.+ \d{4}): \[(?P<title>.+)\]\((?P<url>\S+)\)$", re.MULTILINE)
NAME = r"[A-Z][\w'-]+"
CITATION = re.compile(rf"\b({NAME}(?: et al\.| and (?:De )?{NAME}| Team)?),? \(?((?:19|20)\d\d)\)?")


def read_references(path: Path = REFERENCES) -> dict[str, str]:
    """The address of each paper by the name that it is cited by, such as `Vaswani et al. 2017`."""
    return {entry["name"]: entry["url"] for entry in ENTRY.finditer(path.read_text(encoding="utf-8"))}


def citations(text: str) -> list[str]:
    """The papers that `text` cites, each once and in order, as `Names YEAR`.

    A name and a year count as a citation where the name says so (`et al.`, two authors), or where the list
    has that paper.
    """
    flat = re.sub(r"\s+", " ", text)
    found = dict.fromkeys(f"{names} {year}" for names, year in CITATION.findall(flat))
    known = read_references()
    return [name for name in found if name in known or " et al. " in name or " and " in name]
