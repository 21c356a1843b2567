"""Lay the book's sources out in a folder, and let Sphinx make HTML of them."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from lecture_lib.base.errors import CourseError
from lecture_lib.base.files import explaining_os_errors
from lecture_lib.base.paths import OUT, ROOT, SOLUTIONS
from lecture_lib.course.chapters import Chapter, all_chapters
from lecture_lib.course.stored import save

from .explorer import in_page, write_files
from .library import library_pages
from .links import in_book, pictures
from .notebooks import page_of

EXPLORER = "<!-- explorer -->"  # where it goes in its page
DOCS, BOOK = ROOT / "docs", OUT / "book"
NEEDED = ("sphinx", "myst_nb", "sphinx_book_theme", "latex2mathml")  # the extra [book]


def build_book(book: Path = BOOK) -> Path:
    """Make the book, in the folder `book`; returns its first page.

    What was there is replaced once the new one is whole. Raises CourseError if the extra `[book]` isn't
    installed, or with Sphinx's own words if it warns of something.
    """
    missing = [name for name in NEEDED if not find_spec(name)]
    if missing:
        raise CourseError(
            f"the book needs {missing[0]}, which isn't installed; run: pip install -e '.[book]'"
        )
    with TemporaryDirectory() as folder:
        sources, pages = Path(folder) / "sources", Path(folder) / "pages"
        lay_out(sources)
        run_sphinx(sources, pages)
        write_files(pages)
        with explaining_os_errors(book):
            shutil.rmtree(book, ignore_errors=True)
            shutil.copytree(pages, book)
    return book / "index.html"


def run_sphinx(sources: Path, pages: Path) -> None:
    """Make HTML of `sources`, in `pages`; CourseError if Sphinx warns of anything."""
    options = ["-q", "-W", "--keep-going", "-c", str(DOCS), "-d", str(pages.parent / "doctrees")]
    command = [sys.executable, "-m", "sphinx", *options, "-b", "html", str(sources), str(pages)]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise CourseError(f"Sphinx made no book of {DOCS}:\n{done.stderr.strip()}")


def lay_out(sources: Path) -> None:
    """Write every page's source to the folder, in the project's own layout, links and pictures included."""
    for chapter in all_chapters():
        solutions = solutions_of(chapter)
        save(page_of(chapter, solutions), sources / "notebooks" / chapter.path.name)
        if solutions:
            save(page_of(Chapter(solutions)), sources / "notebooks" / "solutions" / solutions.name)
    texts = {path.name: in_book(path.read_text(encoding="utf-8"), DOCS) for path in DOCS.glob("*.md")}
    texts["explorer.md"] = texts["explorer.md"].replace(EXPLORER, f"```{{raw}} html\n{in_page()}\n```")
    for name, text in {**texts, **library_pages()}.items():
        page = sources / name
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")
    for picture in {picture for path in DOCS.glob("*.md") for picture in pictures(path)}:
        copy = sources / picture.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, copy)


def solutions_of(chapter: Chapter) -> Path | None:
    """The notebook that solves a chapter's exercises, if there is one."""
    path = SOLUTIONS / chapter.path.name
    return path if path.exists() else None
