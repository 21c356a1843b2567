"""The book: what `lecture book` makes of notebooks, library and records, read as a browser would."""

import os
import re
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

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
from lecture_lib.course.chapters import Chapter, all_chapters
from lecture_lib.course.promotion import read_modules
from lecture_lib.course.stored import save

INSTALLED = all(map(find_spec, staging.NEEDED))
needs_sphinx = pytest.mark.skipif(
    not INSTALLED and not os.environ.get("CI"),
    reason="the book's extra isn't installed: pip install -e '.[book]'",
)
CHAPTERS = all_chapters()


class Page(HTMLParser):
    """What a page of HTML refers to, and the ids that others can refer to."""

    def __init__(self, path: Path):
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.links, self.loaded, self.ids = [], [], set()
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids.add(given.get("id"))
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif address := given.get("href" if given.get("rel") == "stylesheet" else "src"):
            self.loaded.append(address)


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    """The folder of the book, built once."""
    return staging.build_book(tmp_path_factory.mktemp("out") / "book").parent


@pytest.fixture(scope="module")
def pages(book) -> dict[Path, Page]:
    """Every page of the book."""
    return {path: Page(path) for path in book.rglob("*.html") if "_static" not in path.parts}


# ---------------------------------------------------------------- the whole book


@needs_sphinx
def test_the_sidebar_has_every_chapter_in_order(book, pages):
    links = dict.fromkeys(pages[book / "index.html"].links)  # the sidebar's come first
    sidebar = [link for link in links if re.fullmatch(r"notebooks/\w+\.html", link)]
    assert sidebar == [f"notebooks/{chapter.stem}.html" for chapter in CHAPTERS]


@needs_sphinx
def test_every_link_leads_somewhere(pages):
    for path, page in pages.items():
        for link in page.links:
            if "://" in link or link.startswith("mailto:"):
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / unquote(name)).resolve() if name else path
            assert target.exists(), f"{path.name}: {link}"
            if anchor and target in pages:
                assert unquote(anchor) in pages[target].ids, f"{path.name}: {link}"


@needs_sphinx
def test_nothing_is_loaded_from_elsewhere(book, pages):
    for path, page in pages.items():
        for address in page.loaded:
            assert address.startswith("data:") or (path.parent / address.partition("?")[0]).exists(), address
    for style in book.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//", style.read_text(encoding="utf-8")), style


@needs_sphinx
@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
def test_a_chapter_links_each_time_of_the_video_to_its_second(book, pages, chapter):
    page = pages[book / "notebooks" / f"{chapter.stem}.html"]
    for video_time in chapter.video_times.split(", "):
        seconds = sum(int(part) * 60**i for i, part in enumerate(reversed(video_time.split(":"))))
        assert f"https://youtu.be/kCc8FmEb1nY?t={seconds}" in page.links


@needs_sphinx
def test_promoted_cells_link_to_their_module_and_each_other_way(book, pages):
    for name, module in read_modules().items():
        chapter = pages[book / "notebooks" / f"{module.chapter.stem}.html"]
        promoted = {f"../library/{name}.html#lecture_lib.{name}.{public}" for public in module.public_names}
        assert promoted <= {*chapter.links}
        assert f"../notebooks/{module.chapter.stem}.html" in pages[book / "library" / f"{name}.html"].links


@needs_sphinx
def test_cells_show_neither_directives_nor_tags(pages):
    for path, page in pages.items():
        if path.parent.name == "notebooks":
            assert "#| export</span>" not in page.text and ">nbval-ignore-output<" not in page.text


@needs_sphinx
def test_formulas_are_drawn_by_the_browser(book, pages):
    page = pages[book / "notebooks" / "05_self_attention.html"].text
    assert "<mfrac>" in page and "<msqrt>" in page and 'class="formula"' in page
    assert not [address for page in pages.values() for address in page.loaded if "mathjax" in address.lower()]


@needs_sphinx
def test_what_sphinx_warns_of_makes_no_book_and_leaves_the_old_one(tmp_path, monkeypatch):
    (tmp_path / "index.html").write_text("the old one")
    monkeypatch.setattr(
        staging, "lay_out", lambda sources: page_at(sources, "# A page\n\n[gone](/gone.md)\n")
    )
    with pytest.raises(CourseError, match="gone"):
        staging.build_book(tmp_path)
    assert (tmp_path / "index.html").read_text() == "the old one"


def page_at(sources: Path, text: str) -> None:
    sources.mkdir()
    (sources / "index.md").write_text(text)


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


def test_a_chapter_ends_with_its_solutions_if_there_are_any(chapter):
    last = page_of(chapter, Path("somewhere/01_numbers.ipynb")).cells[-1].source
    assert "](solutions/01_numbers.ipynb)" in last and "{toctree}" in last
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
