"""Citations: each paper is in the one list, and linked wherever a notebook names it."""

import re

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell

from lecture_lib.base.paths import LIBRARY, NOTEBOOKS
from lecture_lib.course.references import REFERENCES, citation_problems, cited_papers, read_references

ATTENTION = "https://arxiv.org/abs/1706.03762"


@pytest.mark.parametrize(
    "text", ["as in Vaswani et al. 2017, eq. 1", "Vaswani\net al. (2017)", "(Vaswani et al., 2017)"]
)
def test_a_citation_is_seen_however_it_is_written(text):
    assert cited_papers(text) == {"Vaswani et al. 2017": ATTENTION}


def test_names_of_all_kinds_and_years_that_cite_nothing():
    text = "Efron 1979, Kuhn and De Mori 1990, Gemma Team 2024; Since 2017, in November 2026"
    assert list(cited_papers(text)) == ["Efron 1979", "Kuhn and De Mori 1990", "Gemma Team 2024"]


@pytest.mark.parametrize(
    ("cell", "problems"),
    [
        (new_markdown_cell(f"As [Vaswani et al.\n2017]({ATTENTION}) say"), []),
        (new_code_cell('"""Vaswani et al. 2017, eq. 1."""'), []),
        (
            new_markdown_cell("As Vaswani et al. 2017 say"),
            [f"cites Vaswani et al. 2017 without a link to {ATTENTION}"],
        ),
        (
            new_markdown_cell("As [Vaswani et al. 2017](https://arxiv.org/abs/1512.03385) say"),
            [f"cites Vaswani et al. 2017 without a link to {ATTENTION}"],
        ),
        (
            new_code_cell("x = 1  # Nobody et al. 2031"),
            ["cites Nobody et al. 2031, which docs/references.md doesn't list; add it there"],
        ),
    ],
)
def test_what_is_wrong_with_a_cell(cell, problems):
    assert citation_problems(cell) == problems


def test_the_list_is_in_order_and_holds_what_is_cited():
    names = list(read_references())
    lines = re.findall(r"^- ", REFERENCES.read_text(encoding="utf-8"), flags=re.MULTILINE)
    files = [*NOTEBOOKS.glob("*.ipynb"), *LIBRARY.glob("*.py")]
    text = " ".join(path.read_text(encoding="utf-8").replace('\\n",\n    "', " ") for path in files)
    assert names == sorted(names, key=str.lower) and len(names) == len(lines)
    assert set(names) == {name for name in cited_papers(text) if name in names}
