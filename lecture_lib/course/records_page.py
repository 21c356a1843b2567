"""docs/records.md: what was measured, as tables written from data/recorded between the page's own words."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean

from lecture_lib.base.files import write_text
from lecture_lib.base.paths import DATA, ROOT
from lecture_lib.base.records import read_json

from .ladder import FULL_SIZE, ladder_rows
from .tables import markdown

PAGE = ROOT / "docs" / "records.md"
RECORDED = DATA / "recorded"
TABLE = re.compile(r"(?s)(?<=<!-- )(?P<name>\w+): written from data/recorded -->\n.*?(?=<!-- end -->)")
Row = tuple[str, ...]


def renew(page: Path = PAGE) -> None:
    """Write every table of the page again from what is recorded."""
    write_text(page, renewed(page.read_text(encoding="utf-8")))


def renewed(text: str) -> str:
    """The page's text with what stands between its marks as recorded now."""

    def written(found: re.Match) -> str:
        return f"{found['name']}: written from data/recorded -->\n\n{TABLES[found['name']]()}\n\n"

    return TABLE.sub(written, text)


def measured(record: dict, more: str = "") -> str:
    """The line below a table: the command, the machine and the date of its numbers."""
    return f"*`{record['command']}`: {record['machine']}{more}, {record['date']}.*"


def ladder() -> str:
    """The lecture's rungs, each with its loss in the video and over the recorded seeds."""
    return markdown([row[:-1] for row in ladder_rows()])  # without this machine's own


def races() -> str:
    """Every race under each of its seeds."""
    record = read_json(RECORDED / "speedrun.json")
    return "\n\n".join([markdown(list(race_rows(record))), *map(measured, record.values())])


def race_rows(record: dict) -> Iterator[Row]:
    """The runs of each race of a record."""
    yield "race", "seed", "seconds", "val, in blocks", "by random crops", "in overlapping windows"
    for name, series in record.items():
        for run in series["runs"]:
            losses = (f"{run[score]:.3f}" for score in ("val", "crops", "strided"))
            yield name, str(run["seed"]), f"{run['seconds']:.0f}", *losses


def ablations() -> str:
    """A table for each race that was taken apart, the best variant first."""
    parts = []
    for name, series in read_json(RECORDED / "ablations.json").items():
        where = measured(series, f", {series['seconds']:.0f} s of processor time each")
        parts += [f"**{name}**", markdown(list(variant_rows(series))), where]
    return "\n\n".join(parts)


def variant_rows(series: dict) -> Iterator[Row]:
    """A race's variants with the steps that took the recipe's time, and their losses over the seeds."""
    losses = {
        name: [run["dev"] for run in series["runs"] if run["variant"] == name] for name in series["steps"]
    }
    recipe = mean(losses["the recipe"])
    yield "variant", "steps", "loss on dev, mean", "lowest to highest", "worse than the recipe by"
    for name, found in sorted(losses.items(), key=lambda pair: mean(pair[1])):
        spread = f"{min(found):.3f} to {max(found):.3f}"
        yield name, f"{series['steps'][name]}", f"{mean(found):.3f}", spread, f"{mean(found) - recipe:+z.3f}"


def pretraining() -> str:
    """What pretraining on the other plays bought two models, and the race with all plays."""
    record = read_json(RECORDED / "pretraining.json")
    raced = {name: series for name, series in record.items() if "arms" not in series}
    parts = [part for name in record if name not in raced for part in pretraining_parts(name, record[name])]
    parts += ["**the race**", markdown(list(race_rows(raced))), *map(measured, raced.values())]
    return "\n\n".join(parts)


def pretraining_parts(model: str, series: dict) -> list[str]:
    """A model's table: its runs, on what and how long they trained, and their losses over the seeds."""
    rows = [("run", "steps", "seeds", "val, in blocks", "lowest to highest")]
    for arm, stages in series["arms"].items():
        losses = [run["val"] for run in series["runs"] if run["arm"] == arm]
        steps = ", then ".join(f"{stage['steps']:,} on {stage['text']}" for stage in stages)
        spread = f"{min(losses):.3f} to {max(losses):.3f}"
        rows.append((arm, steps, str(len(losses)), f"{mean(losses):.3f}", spread))
    return [f"**{model}**", markdown(rows), measured(series)]


def full() -> str:
    """The recorded run at the lecture's full size."""
    run = read_json(FULL_SIZE)
    rows = [
        ("parameters", "steps", "hours", "val, in blocks", "by random crops"),
        (
            f"{run['parameters']:,}",
            f"{run['training']['max_iters']:,}",
            f"{run['seconds'] / 3600:.1f}",
            *(f"{run['losses'][score]:.4f}" for score in ("blocks", "crops")),
        ),
    ]
    return f"{markdown(rows)}\n\n{measured(run)}"


# ---------------------------------------------------------------- the benchmark


def bench() -> str:
    """The recorded benchmark."""
    return bench_tables(read_json(RECORDED / "bench.json"))


def bench_tables(results: dict) -> str:
    """A benchmark's tables in Markdown, and a line that says where and when they were measured."""
    to_losses = "; ".join(
        f"below {target} (to {run['val']:.2f}) in {run['seconds']:.0f} s"
        for target, run in results["to a loss"].items()
    )
    peak = f", {results['cores']} threads, peak of a large product {results['peak GFLOP/s']:.0f} GFLOP/s"
    parts = (
        markdown(bench_rows(results)),
        markdown(thread_rows(results["threads"])),
        f"The speedrun's validation loss, from random weights: {to_losses}.",
        measured(results, peak),
    )
    return "\n\n".join(parts)


def bench_rows(results: dict) -> list[Row]:
    """The benchmark as a table, a heading first; ratios before rates."""
    table = [("measured", "model", "ratio", "tokens/s", "share of peak")]
    for title, models in results.items():
        if title.startswith(("training", "sampling")):
            for model, found in models.items():
                share = f"{found['share of peak']:.0%}" if "share of peak" in found else ""
                rate = f"{found['tokens per second']:,.0f}"
                table.append((title, model, f"{found['ratio']:.2f}", rate, share))
    return table


def thread_rows(results: dict[str, dict[str, float]]) -> list[Row]:
    """The milliseconds of each piece of work against threads as a table, a heading first."""
    first = next(iter(results.values()))
    heading = ("milliseconds", *(name.replace("busy", "beside a busy program") for name in first))
    return [heading, *((name, *(f"{ms:,.1f}" for ms in found.values())) for name, found in results.items())]


TABLES: dict[str, Callable[[], str]] = {
    function.__name__: function for function in (ladder, races, ablations, pretraining, full, bench)
}
