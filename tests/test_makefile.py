"""What make sets up, and when again."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lecture_lib.base.paths import ROOT

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="no make on this machine")

# As from a shell, not from the make that tests.
ALONE = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


@pytest.fixture
def clone(tmp_path):
    """A folder with the Makefile and an environment that make takes for set up."""
    folder = tmp_path / "a clone's folder"
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    python.with_name("lecture").touch(mode=0o755)
    (folder / "pyproject.toml").touch()
    (folder / "Makefile").write_text((ROOT / "Makefile").read_text())
    (folder / ".venv" / ".ready").write_text(f"{folder.resolve()}\n")
    return folder


def would_do(folder: Path) -> str:
    """What `make check` would do in the folder."""
    done = subprocess.run(
        ["make", "-n", "check"], cwd=folder, env=ALONE, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_a_second_make_sets_nothing_up(clone):
    assert would_do(clone) == ".venv/bin/lecture check\n"


@pytest.mark.parametrize("fault", ["moved", "python gone", "course gone", "never finished"])
def test_make_sets_up_again_what_would_not_work(clone, fault):
    if fault == "moved":
        clone = clone.rename(clone.with_name("elsewhere"))
    elif fault == "python gone":
        (clone / ".venv" / "bin" / "python").unlink()
    elif fault == "course gone":
        (clone / ".venv" / "bin" / "lecture").unlink()
    else:
        (clone / ".venv" / ".ready").unlink()
    clear = "" if fault == "never finished" else " --clear"
    assert f"-m venv{clear} .venv" in " ".join(would_do(clone).split())


# Stands for python3, and for the environment's own: makes the one, and takes a moment to install into it.
PYTHON = """#!/bin/sh
case "$1 $2" in
"-m venv")
  mkdir -p .venv/bin && rm -f .venv/bin/python && cp "$0" .venv/bin/python
  echo 'exit 0' > .venv/bin/lecture && chmod +x .venv/bin/lecture ;;
"-m pip") echo begun >> installed; sleep 0.3; echo done >> installed ;;
*) exec {python} "$@" ;;
esac
"""


def test_make_sets_up_again_what_has_lost_a_package(clone, monkeypatch):
    record = clone / "packages" / "ghost-1.0.dist-info" / "RECORD"
    record.parent.mkdir(parents=True)
    record.write_text("ghost/__init__.py,,\n")
    record.with_name("METADATA").write_text("Metadata-Version: 2.1\nName: ghost\nVersion: 1.0\n")
    monkeypatch.setitem(ALONE, "PYTHONPATH", str(clone / "packages"))
    assert "-m venv --clear .venv" in " ".join(would_do(clone).split())
    module = clone / "packages" / "ghost" / "__init__.py"
    module.parent.mkdir()
    module.touch()
    assert would_do(clone) == ".venv/bin/lecture check\n"


@pytest.mark.parametrize("folder", ["new", "moved"])
def test_of_two_that_set_up_at_once_one_installs(clone, folder):
    stamp = clone / ".venv" / ".ready"
    if folder == "new":
        shutil.rmtree(clone / ".venv")
    else:
        stamp.write_text("/elsewhere\n")
    python = clone / "python"
    python.write_text(PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    command = ["make", "PYTHON=./python", "check"]
    both = [subprocess.Popen(command, cwd=clone, env=ALONE, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [make.wait(timeout=60) for make in both] == [0, 0]
    assert (clone / "installed").read_text() == "begun\ndone\n"
    assert stamp.read_text() == f"{clone.resolve()}\n"
