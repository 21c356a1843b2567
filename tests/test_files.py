"""Files: whole or not at all, and a sentence where the system refuses."""

import errno
import os
from pathlib import Path

import pytest
import torch

from lecture_lib.base import files
from lecture_lib.base.errors import CourseError
from lecture_lib.base.records import read_json, rounded, write_json


@pytest.fixture
def old(tmp_path):
    """A file that is there already."""
    path = tmp_path / "kept.json"
    path.write_text("old")
    return path


def check_kept(old):
    assert old.read_text() == "old" and list(old.parent.iterdir()) == [old]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_what_the_system_refuses_is_said_in_a_sentence_and_nothing_is_lost(old, monkeypatch, number):
    def refuse(path, *_, **__):
        path.touch()
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "write_text", refuse)
    advice = "Free some space" if number in (errno.ENOSPC, errno.EDQUOT) else "must be a folder"
    with pytest.raises(
        CourseError, match=rf"kept\.json can't be read or written: .*{os.strerror(number)}.*{advice}"
    ):
        write_json(old, {"new": 1})
    check_kept(old)


def test_a_disk_that_fills_up_under_torch_is_named(old, monkeypatch):
    """Torch says "unexpected pos" then; whether the disk is full is asked of the system."""
    monkeypatch.setattr(files, "disk_is_full", lambda folder: folder == old.parent)
    with (
        pytest.raises(CourseError, match=r"kept\.json can't be written: no space left"),
        files.replacing(old),
    ):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos")
    check_kept(old)


def test_another_error_of_torch_stays_what_it_is(old):
    with pytest.raises(RuntimeError, match="size mismatch"), files.replacing(old):
        raise RuntimeError("size mismatch")
    check_kept(old)


def test_a_file_in_place_of_the_folder(old):
    with pytest.raises(CourseError, match="must be a folder"):
        torch_saved(old / "model.pt")
    with pytest.raises(CourseError, match="must be a folder"), files.alone_in(old):
        pass
    check_kept(old)


def torch_saved(path):
    with files.replacing(path) as temporary:
        torch.save({}, temporary)


def test_an_interrupted_write_leaves_the_old_file(old):
    with pytest.raises(KeyboardInterrupt), files.replacing(old) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    check_kept(old)


def test_the_content_is_on_the_disk_before_it_takes_the_name(old, monkeypatch):
    """Or a power cut could leave an empty file under the name of a good one."""
    done, replace = [], Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: done.append(os.fstat(handle).st_size))
    monkeypatch.setattr(Path, "replace", lambda *paths: done.append("renamed") or replace(*paths))
    files.write_text(old, "new content")
    assert done == [len("new content"), "renamed"]


def test_what_a_killed_process_had_half_written_is_removed_by_the_next_run(tmp_path):
    half_written, kept = tmp_path / ".state.pt.x7.tmp", tmp_path / "state.pt"
    for path in (half_written, kept):
        path.touch()
    with files.alone_in(tmp_path):
        assert kept.exists() and not half_written.exists()


@pytest.mark.parametrize("damaged", [b"[cpu", b"\xff", b"max_iters = many"])
def test_a_damaged_toml_file_is_named(tmp_path, damaged):
    path = tmp_path / "presets.toml"
    path.write_bytes(damaged)
    with pytest.raises(CourseError, match=r"presets\.toml isn't TOML: .*; mend that, or get the file again"):
        files.read_toml(path)


def test_a_record_that_the_system_does_not_give_is_named(tmp_path):
    with pytest.raises(CourseError, match=r"x\.json can't be read or written: .*name too long"):
        read_json(tmp_path / ("x" * 300 + "x.json"))


def test_a_record_is_rounded_at_any_depth():
    record = {"seed": 1337, "gain": (1 / 3, [-2.71828]), "kl": {"PPO": 1e-9}}
    assert rounded(record) == {"seed": 1337, "gain": [0.3333, [-2.7183]], "kl": {"PPO": 0.0}}
    assert rounded({"accuracy": 2 / 3}, digits=2) == {"accuracy": 0.67}
