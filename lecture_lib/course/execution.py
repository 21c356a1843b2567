"""Running chapters with papermill: presets, parameters, executed copies, pictures and a closing table."""

import base64
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm

from lecture_lib.base.errors import CourseError
from lecture_lib.base.files import alone_in, explaining_os_errors, read_toml
from lecture_lib.base.paths import NOTEBOOKS, OUT, ROOT
from lecture_lib.base.threads import fixed

from .chapters import Chapter, read_notebook
from .kernels import NAME
from .ladder import lecture_shown, run_since
from .stored import QUIET_KERNEL
from .tables import aligned

PRESETS = NOTEBOOKS / "presets.toml"
START_SECONDS = 60  # that a kernel may take to give its first answer
KILLED = "perhaps out of memory: close other programs, or try a smaller size (-p, --preset smoke)"
FORKS = multiprocessing.get_context("forkserver")  # its process has imported what all workers need
LOSS_CURVE = "loss-curve"  # the tag of the cell whose picture the closing table names
READERS = {"int": int, "float": float, "str": str, "bool": lambda text: BOOLEANS[text.lower()]}
BOOLEANS = {"true": True, "false": False}
Value = bool | int | float | str


@dataclass(frozen=True)
class Result:
    """What running one chapter left behind; if it didn't reach its end, `failure` says why."""

    chapter: Chapter
    seconds: float
    executed: Path
    losses: dict | None  # `train` and `val`, if the chapter trained and recorded a run
    picture: Path | None
    failure: str = ""


# ---------------------------------------------------------------- presets and parameters


def read_presets(path: Path = PRESETS) -> dict[str, dict[str, dict[str, Value]]]:
    """preset -> chapter stem -> parameter -> value. A chapter that a preset leaves out runs as stored."""
    return read_toml(path)


def resolve(chapter: Chapter, preset: str, given: dict[str, str | Value], presets=None) -> dict[str, Value]:
    """The preset's values with the given ones over them, all checked against the chapter's own parameters.

    A value given as text is read as the parameter's type. CourseError for an unknown preset or parameter, or
    for a wrong type, lists what exists.
    """
    presets = read_presets() if presets is None else presets
    if preset not in presets:
        raise CourseError(f"no preset {preset!r}; expected one of: {', '.join(presets)}")
    declared = chapter.types
    values = {**presets[preset].get(chapter.stem, {}), **given}
    for name in values:
        if name not in declared:
            known = ", ".join(f"{name}: {kind}" for name, kind in declared.items()) or "none at all"
            raise CourseError(f"{chapter.stem} has no parameter {name!r}; it has: {known}")
    return {name: typed(name, value, declared[name]) for name, value in values.items()}


def typed(name: str, value: str | Value, kind: str) -> Value:
    """`value` as the annotated type `kind`, read from text if need be; CourseError names all three."""
    try:
        if isinstance(value, str):
            return READERS[kind](value)
    except (KeyError, ValueError):
        pass
    if type(value).__name__ == kind and kind in READERS:
        return value
    if kind == "float" and type(value) is int:
        return float(value)
    hint = " (true or false)" if kind == "bool" else ""
    raise CourseError(f"parameter {name}={value!r}: expected {kind}{hint}")


# ---------------------------------------------------------------- running


def run_chapters(
    chapters: list[Chapter], preset: str, given: dict[str, str], out: Path = OUT, *, side_by_side: int = 1
) -> Iterator[Result]:
    """Execute the chapters in order, `side_by_side` at a time, under a bar; show what a single one prints.

    Yields their results as they come; a chapter that fails doesn't keep the others from running. A single
    chapter that fails raises CourseError.
    """
    # All chapters' parameters are checked before the first chapter runs.
    plans = [(chapter, resolve(chapter, preset, given)) for chapter in chapters]
    if len(plans) == 1:
        yield run_chapter(*plans[0], out, follow=True)
        return
    yield from run_side_by_side(plans, out, side_by_side)


def run_side_by_side(plans: list[tuple[Chapter, dict]], out: Path, at_a_time: int) -> Iterator[Result]:
    """Run each chapter in its own process with one thread: tiny models gain next to nothing from two."""
    FORKS.set_forkserver_preload([__name__])
    waiting, running = deque(plans), {}
    bar = tqdm(total=len(plans), unit="chapter", desc="course", dynamic_ncols=True)
    with ThreadPoolExecutor(at_a_time) as pool, bar:
        try:
            while waiting or running:
                while waiting and len(running) < at_a_time:
                    chapter, parameters = waiting.popleft()
                    running[pool.submit(run_apart, chapter, parameters, out)] = chapter.stem
                bar.set_postfix_str(f"running {', '.join(running.values())}")
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    del running[future]
                    result = future.result()
                    bar.update()
                    yield result
        except KeyboardInterrupt:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGINT)
            raise


def run_apart(chapter: Chapter, parameters: dict[str, Value], out: Path) -> Result:
    """`run_chapter` in a process of its own; a failure, even that it was killed, is in the result."""
    began, executed = time.perf_counter(), out / chapter.stem / chapter.path.name
    try:
        with ProcessPoolExecutor(1, FORKS, begin_worker, (dict(os.environ),)) as process:
            return process.submit(run_chapter, chapter, parameters, out).result()
    except CourseError as error:
        failure = str(error)
    except BrokenProcessPool:
        failure = f"{chapter.stem}: its process was killed, {KILLED}; {partial(executed)}"
    return Result(chapter, time.perf_counter() - began, executed, None, None, failure)


def begin_worker(environment: dict[str, str]) -> None:
    """One thread for the kernel; and Ctrl-C comes from the parent alone, once, not from the terminal too.

    The parent's variables may have changed since the process from which workers fork was started.
    """
    os.environ.clear()
    os.environ |= environment | fixed(1)
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells have ignored in the background


def run_chapter(
    chapter: Chapter, parameters: dict[str, Value], out: Path = OUT, follow: bool = False
) -> Result:
    """Execute one chapter with papermill into `out/NN_name/`. What ran is on disk even if a cell fails.

    With `follow`, what its cells print appears at once, for long training runs. Raises CourseError if
    it fails, or if another run of the chapter is under way.
    """
    with alone_in(out / chapter.stem), explaining_os_errors(out / chapter.stem / chapter.path.name):
        return execute(chapter, parameters, out, follow)


def execute(chapter: Chapter, parameters: dict[str, Value], out: Path, follow: bool) -> Result:
    """What `run_chapter` does once the chapter's folder is its own."""
    executed = out / chapter.stem / chapter.path.name
    started, began = time.time(), time.perf_counter()
    try:
        papermill.execute_notebook(
            chapter.path,
            executed.resolve(),
            parameters,
            kernel_name=NAME,
            start_timeout=START_SECONDS,
            cwd=chapter.path.parent,
            extra_arguments=[*QUIET_KERNEL],
            progress_bar=False,
            stdout_file=sys.stdout if follow else None,
        )
    except PapermillExecutionError as error:
        said = str(error)  # with the cell and the trace
        if error.ename == CourseError.__name__:  # a refusal in a sentence needs neither
            said = f"{chapter.stem}, cell {error.cell_index}: {error.evalue}"
        raise CourseError(f"{said}\n{chapter.stem} failed; {partial(executed)}") from error
    except DeadKernelError:
        where = f"{chapter.stem}: its kernel died in cell {cell_reached(executed)}"
        raise CourseError(f"{where}, {KILLED}; {partial(executed)}") from None
    except RuntimeError as error:  # nbclient's, for a kernel that doesn't answer
        raise CourseError(f"{chapter.stem}: {error}; is the machine very busy? Try again") from None
    except KeyboardInterrupt:
        raise CourseError(f"interrupted in {chapter.stem}; {partial(executed)}") from None
    seconds = time.perf_counter() - began
    return Result(chapter, seconds, executed, run_since(chapter.stem, out, started), save_pictures(executed))


def cell_reached(executed: Path) -> int:
    """The number, among all cells from 0 on, of the cell that was running when the copy was last saved."""
    cells = read_notebook(executed).cells
    return max(i for i, cell in enumerate(cells) if "start_time" in (cell.metadata.get("papermill") or {}))


def partial(executed: Path) -> str:
    """Where to find what a chapter did before it was stopped."""
    return f"what ran so far is in {shown(executed)}"


def save_pictures(executed: Path) -> Path | None:
    """Write each PNG of an executed notebook beside it; returns the loss curve's path, if it has one."""
    for old in executed.parent.glob("*.png"):
        old.unlink()
    loss_curve = None
    for index, cell in enumerate(read_notebook(executed).cells):
        name = "loss_curve" if LOSS_CURVE in cell.metadata.get("tags", []) else f"cell_{index:02}"
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                path = executed.parent / f"{name}.png"
                path.write_bytes(base64.b64decode(output.data["image/png"]))
                loss_curve = path if name == "loss_curve" else loss_curve
    return loss_curve


# ---------------------------------------------------------------- the closing table


def table(results: list[Result]) -> str:
    """A line for each chapter: time, losses, the lecture's number, and where the picture (or the copy) is."""
    rows = [("chapter", "time", "train", "val", "lecture", "picture or notebook")]
    for result in sorted(results, key=lambda result: result.chapter.label):
        losses = result.losses or {}
        rows.append(
            (
                result.chapter.stem,
                "failed" if result.failure else f"{result.seconds:.1f} s",
                *(f"{losses[key]:.4f}" if key in losses else "" for key in ("train", "val")),
                lecture_shown(result.chapter.stem, losses),
                shown(result.picture or result.executed),
            )
        )
    return aligned(rows)


def shown(path: Path) -> str:
    """The path as a reader at the project's top would type it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
