"""Running chapters: presets and parameters, executed copies, failures, interruption, the closing table."""

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_course import notebook

from lecture_lib.base.errors import CourseError
from lecture_lib.base.files import alone_in
from lecture_lib.base.paths import SOLUTIONS
from lecture_lib.base.records import write_json
from lecture_lib.course import cli, copies, execution
from lecture_lib.course.chapters import Chapter, all_chapters, find_chapter, read_notebook
from lecture_lib.course.execution import read_presets, resolve, run_chapter, table, typed
from lecture_lib.course.kernels import own_kernels
from lecture_lib.course.ladder import new_run, record_run, recorded
from lecture_lib.course.stored import save
from lecture_lib.training import History

PARAMETERS = (
    "steps: int = 3  # steps\nrate: float = 0.5  # rate\nname: str = 'a'  # name\nloud: bool = False  # loud"
)
PRESETS = {"cpu": {}, "smoke": {"01_tiny": {"steps": 1}}}


@pytest.fixture
def tiny(tmp_path):
    """A chapter with one parameter of each type; the cells after it are the test's own."""

    def make(*cells: str, stem: str = "01_tiny") -> Chapter:
        stored = notebook(["# 01. Tiny", PARAMETERS, *cells])
        stored.cells[1].metadata["tags"] = ["parameters"]
        path = tmp_path / "notebooks" / f"{stem}.ipynb"
        save(stored, path)
        return Chapter(path)

    return make


# ---------------------------------------------------------------- presets and parameters


def test_given_values_win_over_the_preset(tiny):
    values = resolve(tiny(), "smoke", {"rate": "1e-3", "loud": "True"}, PRESETS)
    assert values == {"steps": 1, "rate": 1e-3, "loud": True}
    assert resolve(tiny(), "smoke", {"steps": "7"}, PRESETS) == {"steps": 7}


@pytest.mark.parametrize("damaged", [b"", b'{"cells": [', b"\xff", b"[]"])
def test_a_damaged_notebook_is_named(tiny, damaged):
    chapter = tiny()
    chapter.path.write_bytes(damaged)
    with pytest.raises(CourseError, match=r"01_tiny\.ipynb is not a readable notebook"):
        resolve(chapter, "cpu", {}, PRESETS)


def test_a_preset_that_leaves_the_chapter_out_changes_nothing(tiny):
    assert resolve(tiny(), "cpu", {}, PRESETS) == {}


@pytest.mark.parametrize(
    ("preset", "given", "message"),
    [
        ("huge", {}, "no preset 'huge'; expected one of: cpu, smoke"),
        (
            "cpu",
            {"stepz": "3"},
            r"01_tiny has no parameter 'stepz'; it has: steps: int, rate: float, name: str",
        ),
        ("cpu", {"steps": "3.5"}, "parameter steps='3.5': expected int"),
        ("cpu", {"steps": "many"}, "parameter steps='many': expected int"),
        ("cpu", {"rate": "fast"}, "parameter rate='fast': expected float"),
        ("cpu", {"loud": "yes"}, r"parameter loud='yes': expected bool \(true or false\)"),
        ("cpu", {"steps": True}, "parameter steps=True: expected int"),
        ("cpu", {"steps": 3.0}, "parameter steps=3.0: expected int"),
        ("cpu", {"name": 3}, "parameter name=3: expected str"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(tiny, preset, given, message):
    with pytest.raises(CourseError, match=message):
        resolve(tiny(), preset, given, PRESETS)


@given(st.integers(), st.floats(allow_nan=False), st.booleans(), st.text())
def test_typed_reads_back_what_was_written(whole, real, truth, text):
    assert typed("p", str(whole), "int") == whole == typed("p", whole, "int")
    assert typed("p", repr(real), "float") == real == typed("p", real, "float")
    assert typed("p", str(truth), "bool") is truth is typed("p", truth, "bool")
    assert typed("p", text, "str") == text
    assert isinstance(typed("p", whole % 1000, "float"), float)


def test_unknown_chapter_lists_what_exists(tiny):
    folder = tiny().path.parent
    assert {find_chapter(key, folder).stem for key in ("1", "01", "tiny", "01_tiny")} == {"01_tiny"}
    with pytest.raises(CourseError, match=r"no chapter '9'; expected a number or a name of: 01_tiny"):
        find_chapter("9", folder)


def test_every_preset_fits_the_chapters():
    presets = read_presets()
    assert list(presets) == ["cpu", "smoke", "full", "checkpoint"]
    for preset, chapters in presets.items():
        for stem in chapters:
            resolve(find_chapter(stem), preset, {}, presets)  # raises for an unknown name or a wrong type


@pytest.mark.parametrize("chapter", all_chapters(), ids=lambda chapter: chapter.stem)
def test_every_parameter_is_annotated_and_explained(chapter):
    assert set(chapter.types.values()) <= set(execution.READERS)
    (cell,) = [cell for cell in chapter.notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert all("  # " in line for line in cell.source.splitlines())


# ---------------------------------------------------------------- running


def test_a_run_leaves_the_executed_copy_its_pictures_and_a_row(tiny, tmp_path):
    chapter = tiny(
        "import matplotlib.pyplot as plt\nplt.plot([3, 2, 1]);",
        "from pathlib import Path\nprint(steps, Path.cwd().name)",
    )
    stored = chapter.notebook
    stored.cells[2].metadata["tags"] = ["loss-curve"]
    save(stored, chapter.path)
    before = chapter.path.read_bytes()

    result = run_chapter(chapter, {"steps": 7}, tmp_path / "out")

    assert chapter.path.read_bytes() == before
    assert result.executed == tmp_path / "out" / "01_tiny" / "01_tiny.ipynb"
    assert read_notebook(result.executed).cells[-1].outputs[0].text == "7 notebooks\n"
    assert result.picture == tmp_path / "out" / "01_tiny" / "loss_curve.png"
    assert result.picture.read_bytes().startswith(b"\x89PNG")
    assert result.losses is None  # nothing was trained
    assert "01_tiny" in table([result]) and "loss_curve.png" in table([result])


def test_only_a_run_recorded_meanwhile_counts(tmp_path):
    history = History([0, 4], [3.0, 1.0], [3.0, 2.0])
    before = recorded("03_bigram", tmp_path)
    record_run("03_bigram", history, parameters=3, seed=4, settings={}, out=tmp_path)
    run = new_run("03_bigram", tmp_path, before)
    assert (run["train"], run["val"], run["steps"]) == (1.0, 2.0, 5)
    assert run["history"]["val"] == [3.0, 2.0]
    assert new_run("03_bigram", tmp_path, recorded("03_bigram", tmp_path)) is None


def test_a_run_counts_though_the_clock_was_set_back_meanwhile(tmp_path):
    def record(val: float, when: float) -> None:
        record_run("03_bigram", History([0], [3.0], [val]), parameters=3, seed=4, settings={}, out=tmp_path)
        for path in recorded("03_bigram", tmp_path):
            os.utime(path, (when, when))

    record(2.5, when=10_000)
    before = recorded("03_bigram", tmp_path)
    record(2.0, when=5_000)
    assert new_run("03_bigram", tmp_path, before)["val"] == 2.0


def lecture(folder: Path, *words: str, ctrl_c=signal.SIG_DFL) -> subprocess.Popen:
    """`lecture run ...` in a process of its own, over a temporary course's notebooks and output folder.

    `ctrl_c` is what SIGINT does there: shells have it ignored (SIG_IGN) by what they run in the background.
    """
    script = (
        "import sys; from pathlib import Path; from lecture_lib.course import execution, cli;"
        "folder = Path(sys.argv[1]);"
        "cli.chosen.__defaults__ = (folder / 'notebooks',);"
        "execution.run_chapters.__defaults__ = (folder / 'out',);"
        "sys.exit(cli.main(['run', *sys.argv[2:]]))"
    )
    command = [sys.executable, "-c", script, str(folder), *words]
    heeding = partial(signal.signal, signal.SIGINT, ctrl_c)
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heeding
    )


def test_a_failing_cell_ends_with_traceback_path_and_status_1(tiny, tmp_path):
    tiny("print('before')", "1 / 0", "print('after')")
    process = lecture(tmp_path, "01")
    _, errors = process.communicate(timeout=120)
    executed = tmp_path / "out" / "01_tiny" / "01_tiny.ipynb"
    assert process.returncode == 1
    assert "ZeroDivisionError: division by zero" in errors
    assert f"01_tiny failed; what ran so far is in {executed}" in errors
    assert any("before" in str(cell.get("outputs")) for cell in read_notebook(executed).cells)


def test_a_refusal_in_a_cell_is_told_in_its_sentence_alone(tiny, tmp_path):
    chapter = tiny("from lecture_lib.base.errors import CourseError", "raise CourseError('n=3: expected 4')")
    with pytest.raises(CourseError) as caught:
        run_chapter(chapter, {}, tmp_path / "out")
    first, last = str(caught.value).splitlines()
    assert first.startswith("01_tiny, cell ") and first.endswith(": n=3: expected 4")
    assert last.startswith("01_tiny failed; what ran so far")


@pytest.mark.parametrize(
    ("stems", "signum", "ctrl_c"),
    [
        (["01_tiny"], signal.SIGINT, signal.SIG_DFL),
        (["01_tiny", "02_tiny", "03_tiny"], signal.SIGTERM, signal.SIG_IGN),
    ],
    ids=["Ctrl-C in one", "SIGTERM in two of three in the background"],
)
def test_interruption_leaves_readable_partial_notebooks(tiny, tmp_path, stems, signum, ctrl_c):
    markers = [tmp_path / f"{stem} reached" for stem in stems]
    for stem, marker in zip(stems, markers, strict=True):
        reach = f"from pathlib import Path\nimport time\nPath({str(marker)!r}).touch()\ntime.sleep(300)"
        tiny("print('before')", reach, stem=stem)
    process = lecture(tmp_path, ctrl_c=ctrl_c)
    deadline = time.time() + 90
    while not all(marker.exists() for marker in markers[:2]) and time.time() < deadline:
        time.sleep(0.1)
    assert all(marker.exists() for marker in markers[:2])
    os.kill(process.pid, signum)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted" in errors
    for stem in stems[:2]:
        executed = read_notebook(tmp_path / "out" / stem / f"{stem}.ipynb")
        nbformat.validate(executed)
        assert any("before" in str(cell.get("outputs")) for cell in executed.cells)
    assert not any(marker.exists() for marker in markers[2:])  # what was not begun stays so


def test_chapters_side_by_side(tiny, tmp_path):
    chapters = [tiny(f"assert {number} != 2", stem=f"0{number}_tiny") for number in (1, 3, 4)]
    results = list(execution.run_chapters(chapters, "cpu", {"steps": "7"}, tmp_path / "out", side_by_side=2))
    assert {result.chapter for result in results} == set(chapters)
    lines = table(results[::-1]).splitlines()[2:]
    assert [line.split()[0] for line in lines] == ["01_tiny", "03_tiny", "04_tiny"]


def test_the_others_go_on_when_one_fails_or_is_killed(tiny, tmp_path):
    tiny("print('fine')")
    tiny("assert False, 'no'", stem="02_tiny")
    killed = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    tiny("x = 1", killed, stem="03_tiny")  # its kernel
    tiny(killed.replace("getpid", "getppid"), stem="04_tiny")  # the process that runs the chapter
    tiny("print('fine')", stem="05_tiny")
    process = lecture(tmp_path)
    output, errors = process.communicate(timeout=180)
    assert process.returncode == 1
    rows = {row.split()[0]: row.split()[1] for row in output.splitlines() if "_tiny" in row}
    assert {stem for stem, time in rows.items() if time == "failed"} == {"02_tiny", "03_tiny", "04_tiny"}
    assert {"01_tiny", "05_tiny"} < set(rows)
    assert "AssertionError: no" in errors and "02_tiny failed; what ran so far is in" in errors
    assert "03_tiny: its kernel died in cell 3, perhaps out of memory" in errors
    assert "04_tiny: its process was killed, perhaps out of memory" in errors
    assert errors.count("Traceback") == 1  # that of the assertion


def test_a_second_run_of_the_same_chapter_is_refused_meanwhile(tiny, tmp_path):
    chapter = tiny("1")
    with (
        alone_in(tmp_path / "out" / "01_tiny"),
        pytest.raises(CourseError, match="another run is writing to"),
    ):
        run_chapter(chapter, {}, tmp_path / "out")
    assert run_chapter(chapter, {}, tmp_path / "out").executed.exists()


def shadow_kernel(folder: Path, *command: str) -> str:
    """A folder for JUPYTER_PATH in which the kernel called python3 is another command."""
    spec = {"argv": command, "display_name": "x", "language": "python"}
    write_json(folder / "kernels" / "python3" / "kernel.json", spec)
    return str(folder)


def test_a_kernel_that_does_not_answer_is_reported_in_a_sentence(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "START_SECONDS", 1)
    asleep = (sys.executable, "-c", "import time; time.sleep(60)")
    monkeypatch.setenv("JUPYTER_PATH", shadow_kernel(tmp_path / "jupyter", *asleep))
    with pytest.raises(CourseError, match=r"^01_tiny: Kernel didn't respond in 1 seconds; is the machine"):
        run_chapter(tiny("1"), {}, tmp_path / "out")


def test_kernels_are_this_interpreter_s_whatever_surrounds_them(tiny, tmp_path, monkeypatch):
    """Another kernel of that name, a profile that prints all expressions, variables that change outputs."""
    profile = tmp_path / "ipython" / "profile_default"
    profile.mkdir(parents=True)
    (profile / "ipython_config.py").write_text("c.InteractiveShell.ast_node_interactivity = 'all'")
    surroundings = {
        "JUPYTER_PATH": shadow_kernel(tmp_path / "jupyter", "false"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "MPLBACKEND": "Agg",
        "PYTHONOPTIMIZE": "1",
        "PYTHONIOENCODING": "ascii",
    }
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)
    chapter = tiny(
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",
        "import sys\n1\nprint(sys.executable, '\u2423', __debug__)",
    )
    before = dict(os.environ)
    with own_kernels():
        result = run_chapter(chapter, {}, tmp_path / "out")
    assert dict(os.environ) == before
    drawn, said = read_notebook(result.executed).cells[-2:]
    assert [output.output_type for output in drawn.outputs] == ["display_data"]
    assert [output.text for output in said.outputs] == [f"{sys.executable} \u2423 True\n"]


# ---------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "99"], "no chapter '99'; expected a number or a name of: 00_intro, 01_tokenization"),
        (["run", "03", "--preset", "huge"], "no preset 'huge'; expected one of: cpu, smoke, full"),
        (["run", "03", "-p", "max_iterz=5"], "03_bigram has no parameter 'max_iterz'"),
        (["run", "03", "-p", "max_iters=few"], "parameter max_iters='few': expected int"),
        (["run", "03", "-p", "max_iters"], "-p max_iters: expected NAME=VALUE"),
        (["refresh", "nothing"], "no chapter 'nothing'"),
        (["speedrun", "--race", "slow"], "there is no race slow; expected one of: fast, "),
    ],
)
def test_command_line_mistakes(words, message, capsys):
    assert cli.main(words) == 1
    assert message in capsys.readouterr().err


def checked_while_sent(signum: int, monkeypatch) -> int:
    """The exit status of `lecture check` whose work is to send its own process a signal."""

    def check_command(arguments):
        os.kill(os.getpid(), signum)
        return 0

    monkeypatch.setattr(cli, "check_command", check_command)
    return cli.main(["check"])


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_being_asked_to_end_is_like_ctrl_c(monkeypatch, capsys, signum):
    before = signal.signal(signum, signal.SIG_DFL)  # these tests may run under nohup
    try:
        assert checked_while_sent(signum, monkeypatch) == 1
        assert capsys.readouterr().err == "\nlecture: interrupted\n"
        assert signal.getsignal(signum) == signal.SIG_DFL
    finally:
        signal.signal(signum, before)


def test_a_cell_that_was_cut_short_has_no_last_word(monkeypatch, caplog):
    """Whether nbclient's task for it still fails, and nobody asks how, depends on the moment."""
    monkeypatch.setattr(logging.getLogger("asyncio"), "disabled", False)

    async def fail():
        raise RuntimeError("Kernel died")

    def check_command(arguments):
        loop = asyncio.new_event_loop()
        task = loop.create_task(fail())
        loop.run_until_complete(asyncio.wait([task]))
        loop.close()
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "check_command", check_command)
    assert cli.main(["check"]) == 1
    gc.collect()
    assert not caplog.records


def test_a_closed_terminal_is_nothing_to_a_command_under_nohup(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert checked_while_sent(signal.SIGHUP, monkeypatch) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("words", [["--port", "9999"], ["--help"], ["03_bigram.ipynb", "--no-browser"], []])
def test_all_further_words_of_lab_are_jupyterlab_s(monkeypatch, words):
    asked = []
    monkeypatch.setattr(copies, "lay_out", list)
    monkeypatch.setattr(subprocess, "call", lambda command, cwd: asked.append(command) or 0)
    assert cli.main(["lab", *words]) == 0
    assert asked == [[sys.executable, "-m", "jupyter", "lab", *words]]


@pytest.mark.parametrize("failing", [0, 1, 2, None])
def test_a_killed_run_fails_the_test_of_other_machines(monkeypatch, failing):
    asked = []

    def nbval_as_on(machine):
        asked.append(machine)
        return -9 if len(asked) - 1 == failing else 0

    monkeypatch.setattr(cli, "nbval_as_on", nbval_as_on)
    assert cli.main(["test", "--portable"]) == (failing is not None)
    assert asked == cli.OTHER_MACHINES  # none is left out


def test_other_parameters_are_tried_instead_of_all_else(monkeypatch):
    asked = []
    monkeypatch.setattr(cli, "pytest", lambda targets, environment: asked.append(targets) or 3)
    assert cli.main(["test", "--parameters"]) == 3
    assert [targets[:3] for targets in asked] == [["tests/test_parameters.py", "-m", "grid"]]


def test_every_notebook_is_tested_once_and_the_long_ones_begin(monkeypatch):
    asked = []
    monkeypatch.setattr(cli, "check_command", lambda arguments: 0)
    monkeypatch.setattr(cli, "pytest", lambda targets, environment: asked.append(targets) or 0)
    cli.main(["test"])
    cli.nbval_as_on(cli.OTHER_MACHINES[0])
    suite, notebooks = asked
    assert [target for target in suite if target != "tests"] == notebooks
    assert sorted(notebooks) == sorted(str(each.path) for each in all_chapters() + all_chapters(SOLUTIONS))
    assert suite.index("tests") == len(cli.LONG)


def test_shards_share_out_every_file_once(monkeypatch):
    asked = []
    monkeypatch.setattr(cli, "check_command", lambda arguments: 0)
    monkeypatch.setattr(cli, "pytest", lambda targets, environment: asked.append(targets) or 0)
    for words in ([], ["--shard", "1/2"], ["--shard", "2/2"]):
        cli.main(["test", *words])
    whole, first, second = asked
    assert sorted(first + second) == sorted(whole) and abs(len(first) - len(second)) <= 1


@pytest.mark.parametrize("part", ["0/2", "3/2", "half", "1"])
def test_a_shard_that_is_none_is_refused(part, capsys):
    with pytest.raises(SystemExit):
        cli.main(["test", "--shard", part])
    assert f"invalid shard value: '{part}'" in capsys.readouterr().err


def test_help_waits_for_no_torch():
    script = "import sys; from lecture_lib.course.cli import parser; parser(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
