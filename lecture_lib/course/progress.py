"""What a learner has solved: `out/progress.json`, written by `check` alone, and the table made from it."""

import re
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from filelock import FileLock, Timeout

from lecture_lib.base.errors import CourseError
from lecture_lib.base.files import explaining_os_errors
from lecture_lib.base.paths import OUT
from lecture_lib.base.records import read_json, write_json

from .chapters import Chapter, all_chapters
from .tables import aligned

FILE = OUT / "progress.json"  # chapter's label -> `run`, a date, and `solved`, a date for each exercise
HEADING = re.compile(
    r"^### (?P<id>\d\d[a-z]?\.\d) (?P<title>.+) \((?P<level>easy|medium|hard), (?P<minutes>\d+) minutes\)$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Task:
    """What an exercise's heading in its notebook says."""

    id: str
    title: str
    level: str
    minutes: int


def tasks_of(chapter: Chapter) -> list[Task]:
    """The chapter's exercises, in order."""
    found = [match.groupdict() for match in HEADING.finditer(chapter.prose)]
    return [Task(each["id"], each["title"], each["level"], int(each["minutes"])) for each in found]


def interactive() -> bool:
    """Whether a person runs the cell that is being executed.

    papermill, nbval and nbclient tell the kernel that nobody could answer an `input()`; JupyterLab and
    the like say the opposite.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return bool(getattr(getattr(shell, "kernel", None), "_allow_stdin", False))


def remember(id: str, right: bool, path: Path = FILE) -> None:
    """Note that a person has reached exercise `id`, and solved it if `right`; what is solved stays solved.

    Trouble with the file costs no more than a printed sentence.
    """
    if not interactive():
        return
    label, today = id.partition(".")[0], date.today().isoformat()
    try:
        with explaining_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock"), timeout=10):
                progress = read_progress(path)
                chapter = progress.setdefault(label, {"run": today, "solved": {}})
                chapter["run"] = today
                if right:
                    chapter["solved"].setdefault(id, today)
                write_json(path, progress)
    except (CourseError, Timeout) as trouble:
        print(f"(your progress couldn't be noted: {trouble})")


def read_progress(path: Path = FILE) -> dict:
    """What is in the file; a damaged one is moved aside, with a sentence, and counts as empty."""
    try:
        progress = read_json(path)
        if all({"run", "solved"} <= set(chapter) for chapter in progress.values()):
            return progress
    except (CourseError, AttributeError, TypeError):
        pass
    aside = path.with_suffix(".damaged.json")
    path.replace(aside)
    print(f"({path.name} was damaged: it is kept as {aside.name}, and a new one begins)")
    return {}


def progress_table(path: Path = FILE) -> str:
    """A line for each chapter: how many exercises are solved, which are open, and when it was last run."""
    progress = read_progress(path)
    rows, all_solved, all_tasks = [("chapter", "solved", "open", "last run")], 0, 0
    for chapter in all_chapters():
        tasks, seen = tasks_of(chapter), progress.get(chapter.label, {"run": "", "solved": {}})
        open_ids = [task.id for task in tasks if task.id not in seen["solved"]]
        solved = len(tasks) - len(open_ids)
        all_solved, all_tasks = all_solved + solved, all_tasks + len(tasks)
        rows.append((chapter.stem, f"{solved} of {len(tasks)}", " ".join(open_ids), seen["run"]))
    return aligned([*rows, ("all", f"{all_solved} of {all_tasks}", "", "")])
