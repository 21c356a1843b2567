"""What make sets up, and when again."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lecture_lib.base.paths import ROOT

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="no make on this machine")


@pytest.fixture
def clone(tmp_path):
    """A folder with the Makefile and an environment that make takes for set up."""
    folder = tmp_path / "a clone's folder"
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    (folder / "pyproject.toml").touch()
    (folder / "Makefile").write_text((ROOT / "Makefile").read_text())
    (folder / ".venv" / ".ready").write_text(f"{folder.resolve()}\n")
    return folder


def would_do(folder: Path) -> str:
    """What `make check` would do in the folder, called from a shell, not from the make that tests."""
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", "-n", "check"], cwd=folder, env=alone, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_a_second_make_sets_nothing_up(clone):
    assert would_do(clone) == ".venv/bin/lecture check\n"


@pytest.mark.parametrize("fault", ["moved", "python gone", "never finished"])
def test_make_sets_up_again_what_would_not_work(clone, fault):
    if fault == "moved":
        clone = clone.rename(clone.with_name("elsewhere"))
    elif fault == "python gone":
        (clone / ".venv" / "bin" / "python").unlink()
    else:
        (clone / ".venv" / ".ready").unlink()
    clear = "" if fault == "never finished" else " --clear"
    assert f"-m venv{clear} .venv" in " ".join(would_do(clone).split())
