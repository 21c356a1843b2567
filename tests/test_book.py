"""The book as `lecture book` makes it: its pages as files, and in a browser."""

import os
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch

from lecture_lib.base.errors import CourseError
from lecture_lib.base.paths import SHIPPED
from lecture_lib.checkpoint import load_checkpoint
from lecture_lib.course.book import staging
from lecture_lib.course.book.explorer import ALONE
from lecture_lib.course.chapters import all_chapters
from lecture_lib.course.promotion import read_modules
from lecture_lib.evaluation import strided_loss
from lecture_lib.gpt import GPT

REQUIRED = os.environ.get("BOOK_TESTS") == "required"  # as in CI: nothing is skipped
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_sphinx = pytest.mark.skipif(
    not all(map(find_spec, staging.NEEDED)) and not REQUIRED,
    reason="the book's extra isn't installed: pip install -e '.[book]'",
)
needs_browser = pytest.mark.skipif(
    not (find_spec("playwright") and CHROMIUM) and not REQUIRED,
    reason="no browser to look at the book with: pip install -e '.[browser]', and install Chromium",
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
def test_a_chapter_links_to_its_solutions_and_they_to_it(book, pages):
    for solutions in (book / "notebooks" / "solutions").glob("*.html"):
        assert f"solutions/{solutions.name}" in pages[book / "notebooks" / solutions.name].links
        assert f"../{solutions.name}" in pages[solutions].links


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


# ---------------------------------------------------------------- in a browser

PHONE, DESK = {"width": 375, "height": 800}, {"width": 1280, "height": 900}
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    """Debian's Chromium, or another that is installed, without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium) -> Iterator:
    """A fresh tab, and in `tab.troubles` what went wrong in it: errors, failed loads, requests elsewhere."""
    page = chromium.new_page(viewport=DESK)
    page.troubles = []
    page.on("console", lambda said: said.type == "error" and page.troubles.append(said.text))
    page.on("pageerror", lambda error: page.troubles.append(str(error)))
    page.on("requestfailed", lambda request: page.troubles.append(request.url))
    page.on(
        "request", lambda request: page.troubles.append(request.url) if "http" in request.url[:5] else None
    )
    yield page
    page.close()


@needs_sphinx
@needs_browser
def test_every_page_opens_without_an_error_and_fits_a_phone(tab, pages):
    wide = "document.documentElement.scrollWidth"
    broken = "[...document.images].filter(image => image.complete && !image.naturalWidth).map(i => i.src)"
    for path in pages:
        tab.set_viewport_size(DESK)
        tab.goto(path.as_uri())
        assert not tab.troubles, path.name
        assert tab.evaluate(broken) == [], path.name
        tab.set_viewport_size(PHONE)
        assert tab.evaluate(wide) <= PHONE["width"], path.name


@needs_sphinx
@needs_browser
def test_search_finds_the_causal_mask(tab, book):
    tab.goto((book / "search.html").as_uri() + "?q=causal+mask")
    tab.wait_for_selector("#search-results li a")
    found = [link.get_attribute("href") for link in tab.query_selector_all("#search-results li a")]
    assert any("notebooks/05_self_attention.html" in link for link in found) and not tab.troubles


# ---------------------------------------------------------------- the explorer

TEXTS = [
    "\n",
    "R",
    "ROMEO:\nWhat light",
    "First Citizen:\nBefore we proceed any further, hear me speak.",
    "To be, or not to be: that is the question",
    "$3&XZqQ!",
    "   \n\n  ''--;;::??",
    "the quick brown fox jumps over the lazy dog and so on until the window is exactly full, " + "a" * 40,
    "KING RICHARD III:\nNow is the winter of our discontent\nMade glorious summer",
    "zzzzzzzzzzzzzzzz",
]
NUMBERS = """text => {
    const { gpt } = explorer, reader = new Reader(gpt), { ids } = gpt.encode(text), places = [...ids.keys()];
    reader.read(ids.slice(0, 2));  // and then the rest, so that what was kept is used
    reader.read(ids);
    const heads = [...Array(gpt.n_layer * gpt.n_head).keys()];
    return {
        logits: places.map(t => [...reader.logitsAt(t)]),
        attention: heads.map(i => places.map(t => places.map(
            s => reader.listens(Math.floor(i / gpt.n_head), i % gpt.n_head, t, s)))),
        lens: places.map(t => reader.lens(t)),
    };
}"""


@pytest.fixture(scope="module")
def small():
    """The model that the explorer shows, by torch: model and tokenizer."""
    return load_checkpoint(SHIPPED["small"])[:2]


@pytest.fixture(params=["explorer.html", ALONE])
def explorer(request, tab, book):
    """The explorer in a tab: as a page of the book, and as a single file."""
    tab.goto((book / request.param).as_uri())
    tab.wait_for_function("window.explorer")
    yield tab
    assert not tab.troubles


def numbers_by_torch(small, text: str) -> dict[str, torch.Tensor]:
    """Logits (T, V), attention (layers * heads, T, T), and the lens's probabilities (T, layers + 1, V)."""
    model, tokenizer = small
    assert isinstance(model, GPT)
    attention, streams = [], [x := model.embed(torch.tensor([tokenizer.encode(text)]))]
    *blocks, norm = model.body
    for block in blocks:
        attention += [head.attend(block.ln1(x))[1][0] for head in block.sa[0].heads]
        streams.append(x := block(x))
    logits = [model.lm_head(norm(stream))[0] for stream in streams]  # each (T, V)
    lens = torch.stack(logits, dim=1).softmax(dim=-1)  # (T, layers + 1, V)
    return {"logits": logits[-1], "attention": torch.stack(attention), "lens": lens}


@needs_sphinx
@needs_browser
@torch.no_grad()
def test_the_explorers_numbers_are_torchs(explorer, small):
    for text in TEXTS:
        found, expected = explorer.evaluate(NUMBERS, text), numbers_by_torch(small, text)
        for name, tensor in expected.items():
            numbers = torch.tensor(found[name], dtype=torch.float32)
            torch.testing.assert_close(numbers, tensor, rtol=0, atol=1e-4)


@needs_sphinx
@needs_browser
def test_the_explorers_losses_are_the_librarys(explorer, small):
    text = "".join(TEXTS) * 2
    model, tokenizer = small
    script = "text => surprises(explorer.gpt, explorer.gpt.encode(text).ids, () => {})"
    losses = explorer.evaluate(script, text)
    expected = strided_loss(model, torch.tensor(tokenizer.encode(text)), model.block_size // 2)
    assert len(losses) == len(text) - 1 > 2 * model.block_size
    assert sum(losses) / len(losses) == pytest.approx(expected, abs=1e-4)


@needs_sphinx
@needs_browser
def test_the_explorer_writes_thirty_characters_a_second(explorer):
    explorer.click("#x-write")
    explorer.wait_for_function("explorer.ids.length > 300")  # well beyond one window
    explorer.click("#x-write")
    rate = int(explorer.inner_text("#x-speed").split()[0])
    written = explorer.input_value("#x-text")
    assert rate >= 30 and len(written) == explorer.evaluate("explorer.ids.length")
    assert f"{len(written)} characters. The model sees the last" in explorer.inner_text("#x-seen")


@needs_sphinx
@needs_browser
def test_a_click_and_a_key_append_the_character_of_a_bar(explorer):
    explorer.fill("#x-text", "ROME")
    first = explorer.locator("#x-bars button").first
    assert first.get_attribute("aria-label").startswith("O 9")
    first.click()
    assert explorer.input_value("#x-text") == "ROMEO"
    explorer.keyboard.press("Enter")  # the bar has kept the keyboard's place
    assert explorer.input_value("#x-text") == "ROMEO:"
    explorer.click("#x-back")
    assert explorer.input_value("#x-text") == "ROMEO"


@needs_sphinx
@needs_browser
def test_the_dials_shape_what_is_drawn(explorer):
    explorer.fill("#x-text", "ROME")
    explorer.evaluate("document.getElementById('x-top-k').value = 2; explorer.showNext()")
    shares = explorer.evaluate("explorer.probabilities()")
    assert sum(share > 0 for share in shares) == 2 and sum(shares) == pytest.approx(1)
    assert explorer.locator("#x-bars button").nth(2).inner_text().endswith("0%")
    explorer.evaluate("document.getElementById('x-temperature').value = 0.1; explorer.showNext()")
    assert max(explorer.evaluate("explorer.probabilities()")) > 0.999
    explorer.click("#x-one")
    assert explorer.input_value("#x-text") == "ROMEO"


@needs_sphinx
@needs_browser
def test_arrow_keys_walk_through_the_text_and_say_who_listens(explorer):
    explorer.fill("#x-text", "ROMEO:\nWhat")
    explorer.focus("#x-attention button[tabindex='0']")
    for key in ("ArrowLeft", "Home", "ArrowRight"):
        explorer.keyboard.press(key)
    focused = explorer.evaluate("document.activeElement.ariaLabel")
    assert focused == "“O”, character 2"
    assert explorer.inner_text("#x-told").startswith("Layer 1, head 1. “O” (2) listens to ")
    assert "in the text it is “M”" in explorer.inner_text("#x-lens caption")
    explorer.click("[aria-label='layer 2, head 3']")
    assert explorer.inner_text("#x-told").startswith("Layer 2, head 3. “O” (2) listens to ")


@needs_sphinx
@needs_browser
def test_unknown_characters_are_told_and_left_out_only_when_asked(explorer):
    explorer.fill("#x-text", "Zürich 26")
    assert "“ü” (character 2), “2” (character 8), “6” (character 9)" in explorer.inner_text("#x-unknown")
    assert explorer.is_disabled("#x-write") and explorer.locator("#x-bars button").count() == 0
    explorer.click("#x-unknown button")
    assert explorer.input_value("#x-text") == "Zrich " and explorer.inner_text("#x-unknown") == ""
    explorer.fill("#x-pasted", "naïve")
    explorer.click("#x-score")
    assert "“ï” (character 3)" in explorer.inner_text("#x-refused")
    explorer.fill("#x-text", "")
    assert "at least one character" in explorer.inner_text("#x-seen")


@needs_sphinx
@needs_browser
def test_a_pasted_text_is_coloured_by_its_losses(explorer):
    explorer.fill("#x-pasted", "ROMEO:\nqqqq")
    explorer.click("#x-score")
    explorer.wait_for_selector("#x-losses button")
    buttons = explorer.locator("#x-losses button")
    shares = [float(button.evaluate("b => b.style.getPropertyValue('--share')")) for button in buttons.all()]
    assert len(shares) == 11 and shares[0] == 0 and shares[-1] > 0.6 > shares[4]
    buttons.last.hover()
    assert explorer.inner_text("#x-loss-told").startswith("“q” (character 11): ")
    explorer.fill("#x-pasted", "a" * 2001)
    explorer.click("#x-score")
    assert "2001 characters; expected at most 2000" in explorer.inner_text("#x-refused")
