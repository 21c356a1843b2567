"""docs/records.md, the page of what was measured."""

from lecture_lib.course.records_page import (
    PAGE,
    TABLES,
    bench_tables,
    pretraining_parts,
    renewed,
    variant_rows,
)

RESULTS = {
    "command": "make bench",
    "machine": "a machine",
    "cores": 2,
    "date": "2026-01-01",
    "peak GFLOP/s": 65.4,
    "training, small": {
        "slow": {"ratio": 1.0, "tokens per second": 1000.0, "share of peak": 0.25},
        "fast": {"ratio": 2.5, "tokens per second": 2500.0, "share of peak": 0.625},
    },
    "sampling": {"again": {"ratio": 1.0, "tokens per second": 4.0}},
    "growth": {},
    "threads": {"tiny": {"idle, 1 thread": 1.0, "busy, 1 thread": 1234.56}},
    "to a loss": {"1.88": {"seconds": 9.6, "val": 1.7}, "1.48": {"seconds": 30, "val": 1.466}},
}


def test_the_page_shows_what_is_recorded():
    page = PAGE.read_text(encoding="utf-8")
    assert renewed(page) == page
    assert all(f"<!-- {name}: written" in page for name in TABLES)


def test_a_table_goes_between_its_marks_and_nowhere_else():
    page = PAGE.read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith("| bigram | about 2.5 |"))
    damaged = page.replace(row, "| bigram | another number |")
    assert damaged != page and renewed(damaged) == page
    assert renewed("no mark\n") == "no mark\n"


def test_the_benchmark_is_told_by_its_ratios_times_and_losses():
    tables = bench_tables(RESULTS)
    assert "| training, small | fast | 2.50 | 2,500 | 62% |" in tables
    assert "| milliseconds | idle, 1 thread | beside a busy program, 1 thread |" in tables
    assert "| tiny | 1.0 | 1,234.6 |" in tables
    assert "below 1.88 (to 1.70) in 10 s; below 1.48 (to 1.47) in 30 s." in tables
    assert tables.endswith(
        "*`make bench`: a machine, 2 threads, peak of a large product 65 GFLOP/s, 2026-01-01.*"
    )


def test_variants_are_compared_with_the_recipe_best_first():
    losses = {"the recipe": [1.5, 1.7], "without noise": [1.5, 1.6], "with dropout": [2.0]}
    runs = [{"variant": name, "dev": loss} for name, found in losses.items() for loss in found]
    _, *rows = variant_rows(
        {"steps": {"the recipe": 60, "without noise": 66, "with dropout": 57}, "runs": runs}
    )
    assert [row[0] for row in rows] == ["without noise", "the recipe", "with dropout"]
    assert rows[0] == ("without noise", "66", "1.550", "1.500 to 1.600", "-0.050")
    assert [row[-1] for row in rows[1:]] == ["+0.000", "+0.400"]


def test_a_pretrained_model_is_told_with_its_stages_and_the_spread_of_its_seeds():
    stages = [{"text": "plays", "steps": 3000}, {"text": "tiny", "steps": 1000}]
    runs = [{"arm": "fine-tuned", "val": loss} for loss in (1.8, 1.9)] + [{"arm": "other", "val": 1.0}]
    series = {"arms": {"fine-tuned": stages}, "runs": runs, "command": "c", "machine": "m", "date": "d"}
    name, table, line = pretraining_parts("small", series)
    assert (name, line) == ("**small**", "*`c`: m, d.*")
    assert table.endswith("| fine-tuned | 3,000 on plays, then 1,000 on tiny | 2 | 1.850 | 1.800 to 1.900 |")
