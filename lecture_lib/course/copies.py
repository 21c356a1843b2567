"""A learner's own copies of the notebooks, which neither git nor a newer course overwrites."""

import hashlib
import shutil
from pathlib import Path

from lecture_lib.base.files import replacing
from lecture_lib.base.paths import MINE, NOTEBOOKS
from lecture_lib.base.records import read_json, write_json

from .chapters import all_chapters

ORIGINALS = (
    ".originals.json"  # in the copies' folder: name -> digest of the notebook that the copy was made of
)


def lay_out(originals: Path = NOTEBOOKS, mine: Path = MINE) -> list[str]:
    """Copy each chapter into `mine`, unless there's a copy that somebody has changed; that one stays.

    Returns a sentence for each copy that stayed although the chapter is newer.
    """
    made_of, kept = read_json(mine / ORIGINALS), []
    for chapter in all_chapters(originals):
        name, copy, original = chapter.path.name, mine / chapter.path.name, digest(chapter.path)
        if not copy.exists() or digest(copy) == made_of.get(name):
            with replacing(copy) as temporary:
                shutil.copyfile(chapter.path, temporary)
            made_of[name] = original
        elif made_of.get(name) != original:
            advice = "the course has a newer one: rename yours to get it"
            kept.append(f"{copy} holds your work and stays; {advice}")
    write_json(mine / ORIGINALS, made_of)
    return kept


def digest(path: Path) -> str:
    """A file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
