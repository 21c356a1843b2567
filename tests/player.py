"""Chapters played without a kernel: one process that has torch and the library, and a child of it for each.

A kernel takes two seconds to start before a cell runs; a fork, milliseconds. A child executes the code cells
in order in a namespace of its own, as papermill would: the given values stand after the `parameters` cell,
the last value of a cell is shown, pictures are drawn. What it would leave in out/ goes to a temporary folder.
"""

import ast
import json
import linecache
import os
import pkgutil
import resource
import shutil
import signal
import subprocess
import sys
import traceback
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import nbformat

from lecture_lib.base import paths
from lecture_lib.base.errors import CourseError
from lecture_lib.base.threads import fixed

PATIENCE = 240  # seconds that one run may take


@dataclass
class Outcome:
    """How a run ended: at the end, or in `cell` (counted among all cells), with what was raised there."""

    seconds: float = 0.0  # of processor time
    cell: int | None = None
    error: str = ""
    refused: bool = False  # by a CourseError, whose sentence is `error`


class Player:
    """The process that runs chapters; a context, since it's to be ended."""

    def __enter__(self) -> "Player":
        path = os.pathsep.join([str(paths.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            env=os.environ | fixed(1) | {"MPLBACKEND": "Agg", "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_) -> None:
        self.process.communicate()

    def play(self, notebook: Path, parameters: dict, times: int = 1) -> Outcome:
        """Run a chapter, its parameters changed; each cell so many times before the next."""
        print(json.dumps([str(notebook), parameters, times]), file=self.process.stdin, flush=True)
        return Outcome(**json.loads(self.process.stdout.readline()))


# ---------------------------------------------------------------- what the process does


def serve() -> None:
    """Read what `play` is given from each line of stdin, and answer with the outcome."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    with TemporaryDirectory(prefix="lecture-player-") as home:
        paths.OUT = Path(home) / "out"  # before any other module asks
        warm_up()
        for line in sys.stdin:
            shutil.rmtree(paths.OUT, ignore_errors=True)  # or a long run would go on with it
            with TemporaryDirectory(dir=home) as folder:
                print(json.dumps(run_apart(line, Path(folder))), file=answers, flush=True)


def warm_up() -> None:
    """Import what chapters import."""
    import matplotlib.pyplot  # noqa: F401

    import lecture_lib

    for module in pkgutil.walk_packages(lecture_lib.__path__, "lecture_lib."):
        if not module.name.startswith("lecture_lib.course.book."):  # they need the book's extra
            import_module(module.name)


def run_apart(line: str, folder: Path) -> dict:
    """The outcome of a run in a child of this process, as a dictionary."""
    report = folder / "outcome.json"
    child = os.fork()
    if child == 0:
        signal.alarm(PATIENCE)
        os.chdir(folder)
        report.write_text(json.dumps(asdict(outcome(*json.loads(line)))))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return {"error": f"ended by {signal.Signals(os.WTERMSIG(status)).name}"}
    return json.loads(report.read_text())


def outcome(notebook: str, parameters: dict, times: int) -> Outcome:
    """Execute a chapter's code cells in this process, each `times` times."""
    sys.modules["__main__"] = main = ModuleType("__main__")
    vars(main)["display"] = repr
    for index, cell in enumerate(nbformat.read(notebook, as_version=4).cells):
        if cell.cell_type != "code":
            continue
        try:
            for _ in range(times):
                execute(cell.source, f"cell {index}", vars(main))
        except BaseException as error:
            return Outcome(seconds(), index, told(error, f"cell {index}"), isinstance(error, CourseError))
        if "parameters" in cell.metadata.get("tags", []):
            vars(main).update(parameters)
    return Outcome(seconds())


def execute(source: str, name: str, names: dict) -> None:
    """Run one cell, show the value that it ends with, draw its pictures."""
    import matplotlib.pyplot as plt

    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), name, "exec", dont_inherit=True), names)
    if last:
        repr(eval(compile(ast.Expression(last.value), name, "eval", dont_inherit=True), names))
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
    plt.close("all")


def seconds() -> float:
    """Processor time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return round(used.ru_utime + used.ru_stime, 2)


def told(error: BaseException, name: str) -> str:
    """A CourseError's sentence; of another error kind, message, and the cell's line that led to it."""
    if isinstance(error, CourseError):
        return str(error)
    lines = [frame.line for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
    return f"{type(error).__name__}: {str(error)[:300]}, at: {lines[-1] if lines else name}"


if __name__ == "__main__":
    serve()
