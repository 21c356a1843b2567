"""The book's sources: what notebooks, links and modules become before Sphinx reads them."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell
from small_course import FIRST, notebook

from lecture_lib.base.errors import CourseError
from lecture_lib.base.paths import NOTEBOOKS, ROOT
from lecture_lib.course import repository
from lecture_lib.course.book import staging
from lecture_lib.course.book.library import described, module_page
from lecture_lib.course.book.links import in_book
from lecture_lib.course.book.notebooks import page_of
from lecture_lib.course.chapters import Chapter
from lecture_lib.course.promotion import read_modules
from lecture_lib.course.stored import save


def test_a_missing_extra_is_told_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "NEEDED", ("no_such_package",))
    with pytest.raises(
        CourseError, match=re.escape("no_such_package, which isn't installed; run: pip install")
    ):
        staging.build_book(tmp_path)


# ---------------------------------------------------------------- a chapter as a page


@pytest.fixture
def chapter(tmp_path) -> Chapter:
    """A small chapter with a folded cell at its end."""
    stored = notebook(FIRST)
    folded = {"jupyter": {"source_hidden": True}, "tags": ["a"]}
    stored.cells.append(new_code_cell("1", id="folded", metadata=folded))
    save(stored, tmp_path / "01_numbers.ipynb")
    return Chapter(tmp_path / "01_numbers.ipynb")


def test_a_promoted_cell_is_preceded_by_where_it_went(chapter):
    cells = page_of(chapter).cells
    went = "{py:obj}`double <lecture_lib.numbers.double>` in {py:mod}`lecture_lib.numbers`"
    where = [i for i, cell in enumerate(cells) if cell.source.startswith("```{container} promoted")]
    assert went in cells[where[0]].source
    assert cells[where[0] + 1].source.startswith("def double(x):") and len(where) == 2
    assert len({cell.id for cell in cells}) == len(cells)


def test_a_folded_cell_stays_folded(chapter):
    assert page_of(chapter).cells[-1].metadata["tags"] == ["a", "hide-input"]
    assert "hide-input" not in page_of(chapter).cells[1].metadata["tags"]


def test_solutions_come_after_their_chapter(chapter):
    last = page_of(chapter, Path("somewhere/01_numbers.ipynb")).cells[-1].source
    assert last == "```{toctree}\n:hidden:\n\nsolutions/01_numbers.ipynb\n```"
    assert "solutions" not in page_of(chapter).cells[-1].source


# ---------------------------------------------------------------- links


@pytest.fixture
def unnamed(monkeypatch):
    """The project as it is while pyproject.toml names no repository."""
    monkeypatch.setattr(repository, "repository", lambda: None)


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("[a](https://example.org)", "[a](https://example.org)"),
        ("[a](#here)", "[a](#here)"),
        ("[a](02_batches.ipynb)", "[a](/notebooks/02_batches.ipynb)"),
        ("[a](11_gpt.ipynb#4.-A-good-start)", "[a](/notebooks/11_gpt.ipynb#4-a-good-start)"),
        ("[a](../lecture_lib/gpt.py)", "[a](/library/gpt.md)"),
        ("[a](../lecture_lib/base/files.py)", "[a](/library/base.files.md)"),
        ("[a](../README.md#two-commands)", "[a](/index.md)"),
        ("[a](../docs/records.md#the-races)", "[a](/records.md#the-races)"),
        ("![a](../data/recorded/bench.png)", "![a](/data/recorded/bench.png)"),
        ("see [the card](../data/checkpoint/full.json).", "see the card."),
    ],
)
def test_links_of_a_notebook_in_the_book(unnamed, link, expected):
    assert in_book(link, NOTEBOOKS) == expected


def test_files_without_a_page_are_linked_once_the_repository_has_a_name(tmp_path, monkeypatch):
    named = tmp_path / "pyproject.toml"
    named.write_text('[project]\nname = "x"\n[project.urls]\nRepository = "https://github.com/a/b/"\n')
    assert repository.repository(named) == "https://github.com/a/b"
    monkeypatch.setattr(repository, "repository", lambda: "https://github.com/a/b")
    linked = in_book("[the card](../data/checkpoint/full.json)", NOTEBOOKS)
    assert linked == "[the card](https://github.com/a/b/blob/main/data/checkpoint/full.json)"


def test_a_project_without_a_repository_has_none(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n')
    assert repository.repository(tmp_path / "pyproject.toml") is None


def test_places_to_run_it_are_linked_once_the_repository_has_a_name(monkeypatch):
    page = "# Where\n\n<!-- links: derived from pyproject.toml -->\n<!-- end -->\n\nrest\n"
    monkeypatch.setattr(repository, "repository", lambda: "https://github.com/An-Owner/a-name")
    named = repository.with_links(page)
    for link in (
        "[The book](https://an-owner.github.io/a-name/)",
        "[A codespace](https://codespaces.new/An-Owner/a-name)",
        "[Binder](https://mybinder.org/v2/gh/An-Owner/a-name/main?labpath=notebooks%2F00_intro.ipynb)",
        "[Colab](https://colab.research.google.com/github/An-Owner/a-name/blob/main/notebooks/00_intro.ipynb)",
    ):
        assert f"- {link}\n" in named
    assert repository.with_links(named) == named and named.endswith("rest\n")
    monkeypatch.setattr(repository, "repository", lambda: None)
    assert repository.with_links(named) == page


# ---------------------------------------------------------------- the library's pages


def test_a_page_of_the_library_has_what_the_module_has():
    page = module_page("gpt")
    assert page.startswith("# gpt\n\n```{py:module} lecture_lib.gpt\n```\n")
    assert "{py:class} GPTConfig(vocab_size: int=65, " in page.replace(" = ", "=")
    assert ":type: int\n\ndistinct tokens\n" in page
    assert "{py:function} decoder_block(config: GPTConfig) -> Block\n" in page
    assert "{py:method} check_share(name: str) -> None\n" in page
    assert (ROOT / "lecture_lib" / "gpt.py").read_text() in page


def test_every_public_name_of_every_module_is_described():
    for name, module in read_modules().items():
        found = re.findall(r"\{py:\w+\} (\w+)", module_page(name))
        assert {*module.public_names} <= {*found}


def test_docstrings_link_times_papers_and_notebooks():
    times = "[1:02:00](https://youtu.be/kCc8FmEb1nY?t=3720), [3:04](https://youtu.be/kCc8FmEb1nY?t=184)"
    paper = "[Ba et al. 2016](https://arxiv.org/abs/1607.06450)"
    assert described("As (video 1:02:00, 3:04; Ba et al. 2016).") == f"As (video {times}; {paper})."
    assert described("From notebooks/11_gpt.ipynb.\nWritten by `lecture promote`: no.") == (
        "From [11_gpt](/notebooks/11_gpt.ipynb)."
    )
    assert described("Ba et al. 2016: https://arxiv.org/abs/1607.06450") == (
        "- [Ba et al. 2016](https://arxiv.org/abs/1607.06450)"
    )
    assert described("such as `Ba et al. 2016`") == "such as `Ba et al. 2016`"


@pytest.mark.skipif(not find_spec("latex2mathml"), reason="the book's extra isn't installed")
@pytest.mark.parametrize(
    ("formula", "spaced"),
    [
        (r"\ln 65", True),
        (r"\ln \frac14", True),
        (r"\log p", True),
        (r"\ln(1/p)", False),
        (r"\tanh\left(x\right)", False),
    ],
)
def test_a_function_stands_apart_from_its_argument_unless_that_is_in_parentheses(formula, spaced):
    from lecture_lib.course.book.mathml import mathml

    assert ("<mspace" in mathml(formula)) == spaced
