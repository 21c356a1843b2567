"""The ladder of the lecture: its numbers, ours over several seeds, and the learner's own latest runs.

Three sources, kept apart: `data/ladder.toml` holds what the video shows, `data/recorded/` what was measured
(by `lecture seeds`, and the run at full size), `out/NN_name/run.json` the last run on this machine with the
stored settings.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import mean, stdev

from lecture_lib.base.files import read_toml
from lecture_lib.base.paths import DATA, NOTEBOOKS, OUT
from lecture_lib.base.records import read_json, stamp, write_json

from .chapters import Chapter
from .tables import aligned

COLUMNS = ("rung", "the lecture", "parameters", "recorded, mean ± sd", "this machine")
SEEDS = DATA / "recorded" / "seeds"
FULL_SIZE = DATA / "recorded" / "full.json"  # the recorded run at the lecture's full size
OWN, CHANGED = "run.json", "run_with_other_settings.json"  # in out/NN_name/


def lecture_numbers(path: Path = DATA / "ladder.toml") -> dict[str, dict]:
    """Chapter stem -> what the video shows: `rung`, `val`, `shown` (as it is said there), `video`.

    Where a chapter has a run at full size as well, that rung's numbers are under `full`.
    """
    return read_toml(path)


def lecture_shown(stem: str, run: dict) -> str:
    """The loss that the lecture gives for chapter `stem`, at full size if the run was of that size."""
    numbers = lecture_numbers().get(stem, {})
    full = numbers.get("full", {})
    full_size = "parameters" in run and run["parameters"] == full.get("parameters")
    return (full if full_size else numbers).get("shown", "")


def record_run(stem: str, history, *, parameters: int, seed: int, settings: Mapping, out: Path = OUT) -> None:
    """Remember a training run of chapter `stem` on this machine: settings, final losses and history.

    `history` has `steps`, `train` and `val`, equally long; losses in nats per character. `settings` holds the
    values of the chapter's parameters, among others: a notebook's `globals()` will do. Only a run with the
    stored values is the rung's own; one with other values is kept in a file of its own.
    """
    defaults = Chapter(NOTEBOOKS / f"{stem}.ipynb").defaults
    used = {name: settings[name] for name in defaults if name in settings}
    end = {"train": history.train[-1], "val": history.val[-1], "steps": history.steps[-1] + 1}
    run = {**end, "parameters": parameters, "seed": seed, "settings": used, "history": vars(history)}
    if used == defaults:
        remember(stem, run, out)
    else:
        write_json(out / stem / CHANGED, run)


def remember(stem: str, run: dict, out: Path = OUT) -> None:
    """Remember the result of a run of chapter `stem` on this machine."""
    write_json(out / stem / OWN, run)


def latest_run(stem: str, out: Path = OUT) -> dict | None:
    """The chapter's last run on this machine with exactly the settings stored now, if there is one."""
    path = out / stem / OWN
    if not path.exists():
        return None
    run = read_json(path)
    return run if run.get("settings") == Chapter(NOTEBOOKS / f"{stem}.ipynb").defaults else None


def run_since(stem: str, out: Path, since: float) -> dict | None:
    """What the chapter recorded after `since` (seconds since the epoch), whatever its settings were."""
    for path in (out / stem / OWN, out / stem / CHANGED):
        if path.exists() and path.stat().st_mtime >= since:
            return read_json(path)
    return None


def record_seeds(stem: str, runs: list[dict], command: str, folder: Path = SEEDS) -> Path:
    """Store the runs of one chapter over several seeds, with machine, date and the command that made them."""
    path = folder / f"{stem}.json"
    write_json(path, {"chapter": stem, **stamp(command), "runs": runs})
    return path


def seed_summary(stem: str, folder: Path = SEEDS) -> dict | None:
    """Mean and standard deviation over the recorded seeds of a chapter, beside the record itself."""
    path = folder / f"{stem}.json"
    if not path.exists():
        return None
    record = read_json(path)
    for key in ("train", "val"):
        losses = [run[key] for run in record["runs"]]
        record[key] = {"mean": mean(losses), "sd": stdev(losses), "min": min(losses), "max": max(losses)}
    return record


def earlier_curves(stem: str, folder: Path = SEEDS) -> dict[str, dict[str, list]]:
    """The recorded history of each rung before chapter `stem`, under the first of its recorded seeds."""
    curves = {}
    for earlier, numbers in lecture_numbers().items():
        summary = seed_summary(earlier, folder)
        if earlier < stem and summary:
            curves[numbers["rung"]] = summary["runs"][0]["history"]
    return curves


def ladder_table(out: Path = OUT) -> str:
    """A line per rung: the lecture's validation loss, ours over the recorded seeds, this machine's latest.

    A number from a model of another size than the lecture's says so.
    """
    return aligned(ladder_rows(out))


def ladder_rows(out: Path = OUT) -> list[tuple[str, ...]]:
    """The rows of `ladder_table`, `COLUMNS` first."""
    rows = [COLUMNS]
    for stem, numbers in lecture_numbers().items():
        summary, run, full = seed_summary(stem), latest_run(stem, out), numbers.get("full")
        recorded = f"{summary['val']['mean']:.4f} ± {summary['val']['sd']:.4f}" if summary else ""
        recorded += other_size(summary["runs"][0], numbers) if summary else ""
        rows.append(row(numbers, recorded, run))
        if full:
            record, mine = read_json(FULL_SIZE), read_json(out / stem / CHANGED)
            recorded = f"{record['losses']['blocks']:.4f}{other_size(record, full)}" if record else ""
            rows.append(row(full, recorded, mine if mine.get("parameters") == full["parameters"] else None))
    return rows


def row(numbers: dict, recorded: str, run: dict | None) -> tuple[str, ...]:
    """A rung's line of the table: the lecture's numbers, the recorded ones, and a run on this machine."""
    mine = f"{run['val']:.4f} at {run['steps']:,} steps{other_size(run, numbers)}" if run else ""
    return numbers["rung"], numbers["shown"], f"{numbers['parameters']:,}", recorded, mine


def other_size(run: dict, numbers: dict) -> str:
    """A remark if a run's model doesn't have as many parameters as the lecture's."""
    return "" if run["parameters"] == numbers["parameters"] else f" ({run['parameters']:,} parameters)"


# ---------------------------------------------------------------- the tables that the notebooks show


def ladder_problems(chapters: Iterable[Chapter]) -> list[str]:
    """Where stored notebooks' ladder tables contradict each other: two numbers for one column of one rung."""
    first, found = {}, []  # rung and column -> what the first notebook shows, and its name
    for chapter in chapters:
        for rung, *cells in stored_rows(chapter):
            for column, shown in zip(COLUMNS[1:], cells, strict=True):
                earlier, where = first.get((rung, column), (shown, ""))
                if shown and shown != earlier:
                    here = f"{chapter.path.name}: its ladder table has {shown!r} for {rung} ({column})"
                    found.append(f"{here}, {where} has {earlier!r}; run `lecture refresh` for both")
                elif shown:
                    first[rung, column] = earlier, where or chapter.path.name
    return found


def stored_rows(chapter: Chapter) -> Iterator[list[str]]:
    """The rows of each ladder table among the stored outputs of a chapter, a text for each of `COLUMNS`."""
    outputs = (output for cell in chapter.notebook.cells for output in cell.get("outputs", []))
    for output in outputs:
        lines = iter(output.get("text", "").splitlines())
        if any(line.startswith("rung ") and line.endswith(COLUMNS[-1]) for line in lines):
            starts = [rule.start() for rule in re.finditer("-+", next(lines))]
            for line in lines:
                if line:
                    yield [line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]
