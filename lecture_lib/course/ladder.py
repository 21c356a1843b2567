"""The ladder of the lecture: its numbers, ours over several seeds, and the learner's own latest runs.

Three sources, kept apart: `data/ladder.toml` holds what the video shows, `data/recorded/seeds/` what
`lecture seeds` measured, `out/NN_name/run.json` what was last run on this machine.
"""

import tomllib
from pathlib import Path
from statistics import mean, stdev

from lecture_lib.base.paths import DATA, OUT
from lecture_lib.base.records import read_json, stamp, write_json

from .tables import aligned

SEEDS = DATA / "recorded" / "seeds"


def lecture_numbers(path: Path = DATA / "ladder.toml") -> dict[str, dict]:
    """Chapter stem -> what the video shows: `rung`, `val`, `shown` (as it is said there), `video`."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def lecture_shown(stem: str, run: dict) -> str:
    """The loss that the lecture gives for chapter `stem`: of its small model, if the run was of that size."""
    numbers = lecture_numbers().get(stem, {})
    small = numbers.get("small", {})
    same_size = "parameters" in run and run["parameters"] == small.get("parameters")
    return (small if same_size else numbers).get("shown", "")


def record_run(stem: str, history, *, parameters: int, seed: int, out: Path = OUT) -> None:
    """Remember a training run of chapter `stem` on this machine: its end, and the way there.

    `history` has `steps`, `train` and `val`, equally long; losses in nats per character.
    """
    end = {"train": history.train[-1], "val": history.val[-1], "steps": history.steps[-1] + 1}
    remember(stem, {**end, "parameters": parameters, "seed": seed, "history": vars(history)}, out)


def remember(stem: str, run: dict, out: Path = OUT) -> None:
    """Remember what a run of chapter `stem` on this machine came to."""
    write_json(out / stem / "run.json", run)


def latest_run(stem: str, out: Path = OUT, since: float = 0.0) -> dict | None:
    """What `remember` last wrote for the chapter, after `since` (seconds since the epoch)."""
    path = out / stem / "run.json"
    fresh = path.exists() and path.stat().st_mtime >= since
    return read_json(path) if fresh else None


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


def ladder_table() -> str:
    """A line a rung: the lecture's validation loss, ours over the recorded seeds, this machine's latest.

    A number that belongs to another size of model than the lecture's says so.
    """
    rows = [("rung", "the lecture", "parameters", "recorded, mean +- sd", "this machine")]
    for stem, numbers in lecture_numbers().items():
        size, summary, run = numbers["parameters"], seed_summary(stem), latest_run(stem)
        recorded = f"{summary['val']['mean']:.4f} +- {summary['val']['sd']:.4f}" if summary else ""
        recorded += other_size(summary["runs"][0], size) if summary else ""
        mine = f"{run['val']:.4f} at {run['steps']:,} steps" + other_size(run, size) if run else ""
        rows.append((numbers["rung"], numbers["shown"], f"{size:,}", recorded, mine))
    return aligned(rows)


def other_size(run: dict, parameters: int) -> str:
    """A remark on a run of a model that has not so many parameters."""
    return "" if run["parameters"] == parameters else f" ({run['parameters']:,} parameters)"
