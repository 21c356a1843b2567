"""Writing files so that a reader sees the old content or the new, never a part."""

import contextlib
import errno
import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import CourseError


@contextlib.contextmanager
def explaining_os_errors(path: Path) -> Iterator[None]:
    """Turn the system's errors about `path` into a CourseError with advice."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise CourseError(f"{path} can't be read or written: {error}. {advice(path, full)}") from error
    except RuntimeError as error:  # torch's way of saying that the disk is full
        if not disk_is_full(path.parent):
            raise
        raise CourseError(f"{path} can't be written: no space left. {advice(path, True)}") from error


def advice(path: Path, full: bool) -> str:
    """What to do if `path` can't be read or written."""
    if full:
        return "Free some space there and run the same command again."
    must = "must be a folder that you may read and write"
    return f"{path.parent} {must}: fix that and run the same command again."


def disk_is_full(folder: Path) -> bool:
    """Whether the disk that holds `folder` has no room for even a small file."""
    return folder.exists() and shutil.disk_usage(folder).free < 2**16


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it into place if the block succeeds, remove it if not.

    Its name belongs to this call alone, so two processes may write the same file at once: the last one wins.
    Raises CourseError if the folder can't be written to or the disk is full; the old content stays.
    """
    with explaining_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        temporary.chmod(0o644)  # mkstemp makes private files; these are ordinary ones
        try:
            yield temporary
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())  # or a power cut could leave the new name without its content
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8 with Unix line ends, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def read_toml(path: Path) -> dict:
    """The content of a TOML file; CourseError, with the place, if it is damaged."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also of text that isn't UTF-8
        raise CourseError(f"{path} isn't TOML: {error}; mend that, or get the file again") from None


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold `folder`, made if it is missing, for this process alone while the block runs.

    What a process that was killed had half written there is removed first.
    Raises CourseError at once if another process holds it. However a process ends, its hold ends with it.
    """
    lock = folder / ".lock"
    with explaining_os_errors(lock):
        folder.mkdir(parents=True, exist_ok=True)
        lock.touch()
    try:
        with FileLock(lock, timeout=0):
            for half_written in folder.glob(".*.tmp"):
                half_written.unlink(missing_ok=True)
            yield
    except Timeout:
        raise CourseError(
            f"another run is writing to {folder}; wait until it has ended, or give this one another folder"
        ) from None
