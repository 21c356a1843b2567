"""Each chapter with other parameters, at the size of the preset `smoke`: it runs to its end, or says why not.

`make test` runs a short list; the whole grid, marked `grid`, is for `make test-parameters`.
"""

import ast
import re
from functools import cache
from random import Random

import pytest
from player import Outcome, Player

from lecture_lib.base.paths import ROOT
from lecture_lib.course.chapters import Chapter, all_chapters, find_chapter
from lecture_lib.course.execution import read_presets, resolve
from lecture_lib.course.settings import RANGES, Range

SMOKE = read_presets()["smoke"]
CHAPTERS = all_chapters()
PAIRS = 5  # for each chapter
COMMAND = re.compile(r"(?:lecture run (\w+))?((?: ?-p \w+=[^\s`,]+)+)")  # chapter, parameters
STAND_IN = {"NAME", "N", "PATH", "PATH/model.safetensors"}  # for what a learner would write there


# ---------------------------------------------------------------- what is tried


def checking_cell(chapter: Chapter) -> int | None:
    """The index of the cell that checks the parameters."""
    return next((i for i, cell in enumerate(chapter.notebook.cells)
                 if cell.cell_type == "code" and "check_settings(" in cell.source
                 and "import" not in cell.source), None)  # fmt: skip


@cache
def limits(chapter: Chapter) -> dict[str, Range]:
    """Least and most of each parameter that is a number: the shared ones, and those given in the notebook."""
    index = checking_cell(chapter)
    if index is None:
        return RANGES
    nodes = list(ast.walk(ast.parse(chapter.notebook.cells[index].source)))
    assigned = [node for node in nodes if isinstance(node, ast.Assign)]
    values = {node.targets[0].id: node.value for node in assigned if isinstance(node.targets[0], ast.Name)}
    call = next(node for node in nodes if getattr(getattr(node, "func", None), "id", "") == "check_settings")
    given = {}
    for word in call.keywords:  # name=(least, most), or **dict
        value = ast.literal_eval(word.value if word.arg else values[word.value.id])
        given |= {word.arg: value} if word.arg else value
    return RANGES | given


def numbers(chapter: Chapter) -> dict[str, int | float]:
    """The parameters that are numbers, with the values that the preset `smoke` gives them."""
    values = chapter.defaults | SMOKE.get(chapter.stem, {})
    return {name: value for name, value in values.items() if type(value) in (int, float)}


def extremes(chapter: Chapter) -> dict[str, tuple[int | float, ...]]:
    """Of each number: the least value, a large one, an odd one."""
    limited = {name: limits(chapter).get(name, (value, value)) for name, value in numbers(chapter).items()}
    return {name: tried(name, value, *limited[name]) for name, value in numbers(chapter).items()}


def tried(name: str, usual: int | float, least: int | float, most: int | float) -> tuple[int | float, ...]:
    """The least, a large and an odd value from `least` to `most`; large is what is still cheap."""
    if isinstance(usual, float):
        return float(least), float(most), min(most, 1.7 * usual or 0.37 * most)
    large = most if name == "seed" else max(least, min(most, 4 * usual))
    return least, large, max(least, min(most, usual * 5 // 3 | 1, 3 if usual == 1 else most))


def singles(chapter: Chapter) -> list[dict]:
    """One parameter changed at a time: a number to its extremes, a truth value to the other, a text."""
    changed = [{name: value} for name, some in extremes(chapter).items() for value in some]
    for name, value in chapter.defaults.items():
        if isinstance(value, bool):
            changed.append({name: not value})
        elif isinstance(value, str):
            changed.append({name: "no such, é"})
    return changed


def pairs(chapter: Chapter) -> list[dict]:
    """Two parameters changed at a time, drawn at random, always the same."""
    rng, some = Random(chapter.stem), extremes(chapter)
    two = [rng.sample(sorted(some), min(2, len(some))) for _ in range(PAIRS)]
    return [{name: rng.choice(some[name]) for name in names} for names in two]


def below(chapter: Chapter) -> list[dict]:
    """One number at a time, below its least value."""
    types = {name: type(value) for name, value in numbers(chapter).items()}
    return [{name: types[name](some[0] - 1)} for name, some in extremes(chapter).items()]


def least(chapter: Chapter) -> dict:
    """All numbers at their least."""
    return {name: some[0] for name, some in extremes(chapter).items()}


def proposed() -> list[tuple[Chapter, dict]]:
    """What notebooks and guide propose: `lecture run 03 -p NAME=VALUE`; `-p` alone is for its own."""
    cells = [(c, cell) for c in CHAPTERS for cell in c.notebook.cells if cell.cell_type == "markdown"]
    texts = [(c, cell.source) for c, cell in cells] + [
        (None, (ROOT / "docs" / "guide.md").read_text(encoding="utf-8"))
    ]
    found = {}
    for home, text in texts:
        for key, options in COMMAND.findall(text):
            chapter = find_chapter(key) if key else home
            given = dict(re.findall(r"-p (\w+)=([^\s`,]+)", options))
            if chapter and not STAND_IN & {*given, *given.values()}:
                found[f"{chapter.stem} {given}"] = chapter, resolve(chapter, "cpu", given)
    return list(found.values())


def rows(runs: list[tuple[Chapter, dict]]) -> list:
    """As pytest's parameters, with names."""
    shown = [" ".join([c.label, *(f"{name}={value}" for name, value in given.items())]) for c, given in runs]
    return [pytest.param(*run, id=name) for run, name in zip(runs, shown, strict=True)]


# ---------------------------------------------------------------- trying it


def run(player: Player, chapter: Chapter, given: dict, times: int = 1) -> Outcome:
    """The outcome at the size of `smoke`, each cell run so many times; a fault that is no refusal fails."""
    outcome = player.play(chapter.path, SMOKE.get(chapter.stem, {}) | given, times)
    assert outcome.refused or not outcome.error, f"cell {outcome.cell}: {outcome.error}"
    return outcome


def is_refused(player: Player, chapter: Chapter, given: dict) -> None:
    """A run with one value out of range is refused by that parameter's name, before anything trains."""
    outcome, (name,) = run(player, chapter, given), given
    assert outcome.error.startswith(f"{name}=") and outcome.cell == checking_cell(chapter), outcome


WITH_PARAMETERS = [chapter for chapter in CHAPTERS if chapter.defaults]
GRID = [(c, given) for c in WITH_PARAMETERS for given in singles(c) + pairs(c)] + proposed()


@pytest.mark.parametrize("chapter", WITH_PARAMETERS, ids=lambda chapter: chapter.label)
def test_every_number_has_a_range(chapter):
    assert not numbers(chapter).keys() - limits(chapter).keys()


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.label)
def test_every_cell_runs_at_the_size_of_smoke(player, chapter):
    assert run(player, chapter, {}).error == ""


@pytest.mark.parametrize(("chapter", "given"), rows([(c, least(c)) for c in WITH_PARAMETERS]))
def test_with_all_parameters_at_their_least(player, chapter, given):
    run(player, chapter, given)


@pytest.mark.parametrize(("chapter", "given"), rows([(c, below(c)[0]) for c in WITH_PARAMETERS]))
def test_below_the_least_is_refused(player, chapter, given):
    is_refused(player, chapter, given)


@pytest.mark.grid
@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.label)
def test_every_cell_may_be_run_twice(player, chapter):
    assert run(player, chapter, {}, times=2).error == ""


@pytest.mark.grid
@pytest.mark.parametrize(
    ("chapter", "given"), rows([(c, given) for c in WITH_PARAMETERS for given in below(c)[1:]])
)
def test_below_the_least_the_others_are_refused_too(player, chapter, given):
    is_refused(player, chapter, given)


@pytest.mark.grid
@pytest.mark.parametrize(("chapter", "given"), rows(GRID))
def test_with_other_parameters(player, chapter, given):
    run(player, chapter, given)
