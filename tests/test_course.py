"""The machinery's smaller parts, and that the project's lists agree with each other."""

import json
import os
import re
import subprocess
import sys
import tomllib
import warnings
from contextlib import nullcontext
from pathlib import Path

import matplotlib
import pytest
import torch
from nbformat.v4 import new_output
from small_course import notebook

from lecture_lib.base import device
from lecture_lib.base.errors import CourseError
from lecture_lib.base.files import replacing, write_text
from lecture_lib.base.paths import ROOT, check_project
from lecture_lib.course import cli, ladder, tables
from lecture_lib.course.chapters import Chapter, all_chapters, find_chapter, read_notebook
from lecture_lib.course.stored import save
from lecture_lib.training import History

matplotlib.use("agg")
from lecture_lib.course.plots import loss_curves, visible

# ---------------------------------------------------------------- files


def test_write_replaces_as_a_whole(tmp_path):
    path = tmp_path / "folder" / "a.txt"
    write_text(path, "one\n")
    write_text(path, "zwei ü\n")
    assert path.read_bytes() == "zwei ü\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# ---------------------------------------------------------------- chapters


def test_chapters_are_numbered_in_sequence_and_say_what_they_are():
    chapters = all_chapters()
    numbers = [int(chapter.label[:2]) for chapter in chapters]
    assert sorted(set(numbers)) == list(range(len(set(numbers))))
    assert len({chapter.label for chapter in chapters}) == len(chapters)
    for chapter in chapters:
        assert chapter.opening[0].startswith(f"# {chapter.label}. ")
        assert chapter.video_times
        frame = chapter.notebook.cells[0].source
        assert "**You need:**" in frame and "**You will have:**" in frame
        prose = chapter.prose
        assert (
            prose.index("\n## Summary\n") < prose.index("\n## Exercises\n") < prose.index("\n**Promoted:**")
        )
        assert "**Promoted:**" in chapter.notebook.cells[-1].source


@pytest.mark.parametrize("content", ["", "{}", "not json"])
def test_a_file_that_is_no_notebook(tmp_path, content):
    path = tmp_path / "01_x.ipynb"
    path.write_text(content)
    with pytest.raises(CourseError, match=r"01_x.ipynb is not a readable notebook"):
        read_notebook(path)
    with pytest.raises(CourseError, match="does not exist"):
        read_notebook(tmp_path / "02_y.ipynb")


@pytest.mark.parametrize(
    ("version", "enough"), [((3, 9), False), ((3, 10), False), ((3, 11), True), ((4, 0), True)]
)
def test_the_introduction_refuses_an_old_python(monkeypatch, version, enough):
    (check,) = [cell.source for cell in find_chapter("00").notebook.cells if "version_info" in cell.source]
    monkeypatch.setattr(sys, "version_info", version)
    with nullcontext() if enough else pytest.raises(AssertionError, match=r"3\.11"):
        exec(check, {"sys": sys})


# ---------------------------------------------------------------- ladder


def test_seed_summary_is_the_mean_and_spread_of_what_was_recorded(tmp_path):
    runs = [{"seed": seed, "train": 2.0, "val": val} for seed, val in enumerate([1.0, 2.0, 3.0])]
    ladder.record_seeds("03_bigram", runs, "lecture seeds 03 0 1 2", folder=tmp_path)
    summary = ladder.seed_summary("03_bigram", folder=tmp_path)
    assert summary["val"] == {"mean": 2.0, "sd": 1.0, "min": 1.0, "max": 3.0}
    assert summary["command"] == "lecture seeds 03 0 1 2"
    assert torch.__version__ in summary["machine"]
    assert ladder.seed_summary("06_single_head", folder=tmp_path) is None


def test_ladder_table_has_a_line_a_rung():
    lines = ladder.ladder_table().splitlines()
    rungs = [numbers["rung"] for numbers in ladder.lecture_numbers().values()]
    rungs.append(ladder.lecture_numbers()["11_gpt"]["full"]["rung"])
    assert [line.split("  ")[0] for line in lines[2:]] == rungs


def record(out: Path, val: float, **changed: float) -> None:
    """A run of chapter 07 that ended at `val`, with its stored settings but for those given."""
    settings = find_chapter("07").defaults | changed
    history = History([0, 4999], [4.2, val], [4.2, val])
    ladder.record_run(
        "07_multi_head", history, parameters=7_553, seed=settings["seed"], settings=settings, out=out
    )


@pytest.mark.parametrize("changed", [{"n_head": 8}, {"learning_rate": 1e-2}, {"seed": 1}, {"max_iters": 60}])
def test_a_run_with_another_setting_is_not_the_rungs_own(tmp_path, changed):
    record(tmp_path, 9.8765, **changed)
    assert "9.8765" not in ladder.ladder_table(tmp_path)
    assert ladder.new_run("07_multi_head", tmp_path, before={})["settings"]["n_head"] == changed.get(
        "n_head", 4
    )

    record(tmp_path, 2.2798)
    record(tmp_path, 9.8765, **changed)  # the later one doesn't replace it
    assert "2.2798 at 5,000 steps" in ladder.ladder_table(tmp_path)
    assert "9.8765" not in ladder.ladder_table(tmp_path)


def test_a_run_with_settings_of_another_time_is_not_shown(tmp_path):
    record(tmp_path, 2.2798)
    path = tmp_path / "07_multi_head" / "run.json"
    path.write_text(path.read_text().replace('"n_head": 4', '"n_head": 2'))
    assert ladder.latest_run("07_multi_head", tmp_path) is None
    path.write_text(path.read_text().replace('"settings"', '"other"'))
    assert ladder.latest_run("07_multi_head", tmp_path) is None


def test_the_settings_are_read_from_the_notebook_that_records(tmp_path):
    script = (
        "from lecture_lib.course.ladder import record_run\n"
        "record_run('07_multi_head', history, parameters=7_553, seed=seed, settings=globals(), out=out)"
    )
    notebook = {
        "history": History([0, 4], [3.0, 1.0], [3.0, 2.0]),
        "out": tmp_path,
        **find_chapter("07").defaults,
    }
    exec(script, notebook)
    assert ladder.latest_run("07_multi_head", tmp_path)["val"] == 2.0
    exec(script, notebook | {"n_head": 8})
    assert ladder.latest_run("07_multi_head", tmp_path)["settings"]["n_head"] == 4


@pytest.mark.parametrize(
    ("stem", "parameters", "shown"),
    [
        ("11_gpt", 209_729, "1.82"),
        ("11_gpt", 10_788_929, "1.48"),
        ("03_bigram", 4_225, "about 2.5"),
        ("04_x", 1, ""),
    ],
)
def test_a_run_is_compared_with_the_lectures_model_of_its_size(stem, parameters, shown):
    assert ladder.lecture_shown(stem, {"parameters": parameters}) == shown


def chapter_showing(path: Path, table: str) -> Chapter:
    """A chapter whose notebook printed the table below some other text."""
    stored = notebook(["# 01. X", "print(table)"])
    stored.cells[1].outputs = [new_output("stream", name="stdout", text=f"trained\n{table}\n\nA sample\n")]
    save(stored, path)
    return Chapter(path)


def test_ladder_tables_that_contradict_each_other_are_named(tmp_path):
    record(tmp_path / "out", 2.2798)
    before, after = ladder.ladder_table(tmp_path / "none"), ladder.ladder_table(tmp_path / "out")
    agreeing = [chapter_showing(tmp_path / f"0{i}_x.ipynb", table) for i, table in enumerate((before, after))]
    assert [list(row) for row in ladder.stored_rows(agreeing[1])][2][-1] == "2.2798 at 5,000 steps"
    assert ladder.ladder_problems(agreeing) == []  # a run that one of them hasn't seen is no contradiction
    other = chapter_showing(tmp_path / "02_x.ipynb", after.replace("2.2798 at", "2.3124 at"))
    assert ladder.ladder_problems([*agreeing, other]) == [
        "02_x.ipynb: its ladder table has '2.3124 at 5,000 steps' for four heads (this machine), "
        "01_x.ipynb has '2.2798 at 5,000 steps'; run `lecture refresh` for both"
    ]


def test_the_stored_notebooks_ladder_tables_agree():
    shown = [chapter for chapter in all_chapters() if list(ladder.stored_rows(chapter))]
    assert {"06", "07", "08", "09", "10", "11", "15"} <= {chapter.label for chapter in shown}
    assert ladder.ladder_problems(shown) == []


def test_columns_are_aligned():
    assert tables.aligned([("a", "bb"), ("ccc", "d")]) == "a    bb\n---  --\nccc  d"


# ---------------------------------------------------------------- device, plots


def test_the_device_is_chosen_in_order_and_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert device.choose_device().type == "cpu"
    assert device.describe_device(torch.device("cpu")).startswith("cpu (")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert device.choose_device().type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device.choose_device().type == "cuda"


def test_a_driver_too_old_for_torch_is_no_device_and_no_warning(monkeypatch, recwarn):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(warnings.warn("too old", stacklevel=1)))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert device.choose_device().type == "cpu" and not recwarn.list


def test_loss_curves_draws_both_splits_and_each_reference():
    axes = loss_curves(History([0, 10], [4.0, 3.0], [4.1, 3.2]), {"ln 65": 4.17}, "title")
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert lines["train"] == [4.0, 3.0] and lines["val"] == [4.1, 3.2]
    assert [4.17, 4.17] in lines.values()
    assert "ln 65: 4.17" in [text.get_text() for text in axes.texts]
    assert axes.get_xlabel() == "optimizer step" and "nats" in axes.get_ylabel()


def test_blanks_and_line_ends_can_be_seen():
    assert [visible(character) for character in "a \n"] == ["a", "␣", "↵"]


# ---------------------------------------------------------------- lists that must agree


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_environment_installs_the_project_with_what_running_and_testing_need():
    extras = ",".join(sorted({*project()["project"]["optional-dependencies"]} - {"book", "browser"}))
    text = (ROOT / "environment.yml").read_text()
    assert f"--editable .[{extras}]" in text
    assert f".[{extras}]" in (ROOT / "Makefile").read_text()
    assert f"python{project()['project']['requires-python']}" in text


def test_binder_installs_what_a_reader_needs():
    text = (ROOT / ".binder" / "environment.yml").read_text()
    assert "--editable ..[lab]" in text and f"python{project()['project']['requires-python']}" in text


def test_the_development_container_is_set_up_by_a_target_of_the_makefile():
    text = re.sub(
        r"//[^\n\"]*$", "", (ROOT / ".devcontainer" / "devcontainer.json").read_text(), flags=re.MULTILINE
    )
    container = json.loads(text)
    make, target = container["postCreateCommand"].split()
    assert make == "make" and f"\n{target}: " in (ROOT / "Makefile").read_text()
    assert container["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"].endswith(
        "/.venv/bin/python"
    )
    assert all((ROOT / name).exists() for name in container["customizations"]["codespaces"]["openFiles"])


def test_workflows_test_every_supported_python_on_both_systems():
    text = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    assert "os: [ubuntu-latest, macos-latest]" in text and 'shard: ["1/2", "2/2"]' in text
    versions = [name.rpartition(" ")[2] for name in project()["project"]["classifiers"]]
    assert f"python: {json.dumps(versions)}" in text
    next_minor = int(versions[-1].removeprefix("3.")) + 1
    assert project()["project"]["requires-python"] == f">={versions[0]},<3.{next_minor}"


def test_torch_is_pinned_exactly():
    assert "torch==2.13.0" in project()["project"]["dependencies"]


def test_make_help_names_every_target():
    # As a command of its own, also when these tests are run by make.
    alone = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True, env=alone)
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.+)$", makefile, flags=re.MULTILINE)[1].split()
    assert [line.split()[1] for line in done.stdout.splitlines()] == phony


def test_every_chapter_is_listed_with_its_video_times():
    page = (ROOT / "docs" / "chapters.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("|")]
    for chapter in all_chapters():
        row = next(line for line in rows if f"(../notebooks/{chapter.path.name})" in line)
        assert all(f"[{video_time}]" in row for video_time in chapter.video_times.split(", "))


def test_copies_and_untitled_notebooks_are_no_chapters(tmp_path):
    for name in (
        "Untitled.ipynb",
        "03_bigram-Copy1.ipynb",
        "03_bigram (1).ipynb",
        "03_bigram.ipynb",
    ):
        (tmp_path / name).touch()
    assert [chapter.stem for chapter in all_chapters(tmp_path)] == ["03_bigram"]


def test_nothing_built_is_in_git():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if not (ROOT / ".git").exists() or listed.returncode:
        pytest.skip(f"git doesn't know this folder: {listed.stderr.strip() or 'an unpacked archive'}")
    sizes = {
        name: (ROOT / name).stat().st_size
        for name in listed.stdout.splitlines()
        if Path(ROOT / name).exists()
    }
    assert not [
        name for name in sizes if name.startswith(("out/", ".venv/")) or name.endswith((".whl", ".txt"))
    ]
    large = {name: size for name, size in sizes.items() if size >= 5_000_000}
    assert large.keys() <= {"data/checkpoint/full.safetensors"} and all(
        size < 25e6 for size in large.values()
    )


def test_a_library_without_its_project_says_so_in_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "check_project", lambda: check_project(tmp_path))
    assert cli.main(["check"]) == 1
    assert capsys.readouterr().err.startswith(f"lecture: {tmp_path} has no notebooks: ")
    check_project()
