"""The speedrun's races, their ablations, and the benchmark."""

import json
import os
from dataclasses import replace
from functools import partial

import pytest
import torch
from kit import refusals

from lecture_lib import pretraining, speedrun
from lecture_lib.base.errors import CourseError
from lecture_lib.base.threads import SPIN
from lecture_lib.checkpoint import load_checkpoint
from lecture_lib.course import sampling
from lecture_lib.course.experiments import bench, races
from lecture_lib.evaluation import split_loss
from lecture_lib.gpt import GPTConfig
from lecture_lib.speedrun import SpeedrunConfig, SpeedrunTraining
from lecture_lib.tokenization import CharTokenizer

TINY = partial(SpeedrunConfig, vocab_size=5, block_size=16, n_embd=16, n_head=2, n_layer=1, order=2)
SHORT = partial(SpeedrunTraining, max_iters=4, batch_size=2)


@pytest.fixture
def tiny(monkeypatch):
    """Small models and a small corpus, in which everything takes moments."""
    ids = (torch.arange(2000) // 3) % 5
    splits = {"train": ids[:1800], "val": ids[1800:]}
    monkeypatch.setattr(races, "load_splits", lambda: (CharTokenizer("abcde"), splits))
    monkeypatch.setattr(races, "play_parts", lambda text: torch.arange(2000) // 225)
    monkeypatch.setattr(races, "dev_start", lambda text, n_train: 1500)
    monkeypatch.setattr(speedrun, "load_splits", races.load_splits)
    monkeypatch.setattr(races, "RACES", {"tiny": (TINY(), SHORT()), "other": (TINY(), SHORT())})
    table = {name: (TINY(), SHORT()) for name in ("the recipe", "another")}
    monkeypatch.setattr(races, "variants", lambda name: table)
    monkeypatch.setattr(races, "ABLATION_STEPS", {"tiny": 4, "other": 4})


def test_a_race_is_the_same_again_under_its_seed(tiny, tmp_path):
    first, again, other = (
        races.run_race(seed, "tiny", tmp_path / name) for seed, name in ((1, "a"), (1, "b"), (2, "c"))
    )
    assert first["val"] == again["val"] != other["val"]
    assert first["seconds"] > 0


def test_a_finished_race_can_be_sampled_from(tiny, tmp_path):
    races.run_race(7, "tiny", tmp_path / "model-7")
    assert json.loads((tmp_path / "model-7.json").read_text())["seed"] == 7
    text = sampling.write_on("abc", tmp_path / "model-7", length=20)
    assert text.startswith("abc") and len(text) == 23


def test_the_record_is_written_once_all_races_are_over(tiny, tmp_path):
    path, found = tmp_path / "record.json", []
    for run in races.races([1, 2], "tiny", record=True, path=path, out=tmp_path):
        assert not path.exists()
        found.append(run)
    record = json.loads(path.read_text())["tiny"]
    assert record["runs"] == found and [run["seed"] for run in found] == [1, 2]
    assert record["command"] == "lecture speedrun 1 2 --race tiny --record"


def test_the_records_of_other_races_are_kept(tiny, tmp_path):
    path = tmp_path / "record.json"
    for name in ("tiny", "other"):
        list(races.races([1], name, record=True, path=path, out=tmp_path))
    assert list(json.loads(path.read_text())) == ["tiny", "other"]
    assert {p.name for p in tmp_path.glob("*.json")} == {"record.json", "tiny-1.json", "other-1.json"}


def test_without_record_nothing_is_stored(tiny, tmp_path):
    list(races.races([1], "tiny", path=tmp_path / "record.json", out=tmp_path))
    assert not (tmp_path / "record.json").exists()


def test_a_pretrained_race_counts_all_plays_and_is_counted_so_again(tiny, tmp_path, monkeypatch):
    both = torch.cat([races.load_splits()[1]["train"], torch.arange(300) % 5])
    every = both, torch.arange(len(both)) // 225
    monkeypatch.setattr(races, "every_text", lambda: every)
    monkeypatch.setattr(pretraining, "every_text", lambda: every)
    monkeypatch.setattr(races, "MORE_DATA", {"tiny": SHORT(max_iters=2)})
    found = races.run_race(7, "tiny", tmp_path / "model-7")
    card = json.loads((tmp_path / "model-7.json").read_text())
    assert card["kind"] == "PretrainedSpeedrunGPT" and found["val"] > 0
    model, _, _ = load_checkpoint(tmp_path / "model-7")
    assert sum(table.counts.sum() for table in model.prior.tables) == 2 * len(both) - 1 - 2
    assert split_loss(model, races.load_splits()[1]["val"]) == pytest.approx(found["val"], abs=1e-6)


def test_a_pretrained_race_is_recorded_with_its_fine_tuning(tiny, monkeypatch):
    assert races.record_of("pretrained") != races.record_of("fast") == races.RECORD
    monkeypatch.setattr(races, "MORE_DATA", {"tiny": SHORT(max_iters=2)})
    assert races.series_of("tiny", [])["fine-tuning"]["max_iters"] == 2
    assert "fine-tuning" not in races.series_of("other", [])


def test_interrupted_ablations_go_on_where_they_stopped(tiny, tmp_path):
    path = tmp_path / "ablations.json"
    interrupted = races.ablate("tiny", (1, 2), path)
    first = next(interrupted)
    interrupted.close()
    rest = list(races.ablate("tiny", (1, 2), path))
    stored = json.loads(path.read_text())["tiny"]["runs"]
    assert stored == [first, *rest]
    assert [(run["variant"], run["seed"]) for run in stored] == [
        ("the recipe", 1),
        ("another", 1),
        ("the recipe", 2),
        ("another", 2),
    ]


def test_what_costs_twice_as_much_gets_half_the_steps(tiny, monkeypatch):
    cost = iter([2.0, 4.0, 9.0, 1.0, 1.0, 4.0])  # the recipe and another, three times
    monkeypatch.setattr(races, "processor_seconds_per_step", lambda *_: next(cost))
    seconds, steps = races.equal_time("tiny", torch.arange(9), torch.arange(9))
    assert seconds == 4 * 2.0 and steps == {"the recipe": 4, "another": 2}  # by the medians, 2 and 4


def test_ablations_of_another_race_are_kept(tiny, tmp_path):
    path = tmp_path / "ablations.json"
    for name in ("tiny", "other"):
        list(races.ablate(name, (1,), path))
    stored = json.loads(path.read_text())
    assert list(stored) == ["tiny", "other"] and all(len(series["runs"]) == 2 for series in stored.values())


def test_a_variant_runs_for_all_steps_of_the_race_and_is_added_to_the_ablations(tiny, tmp_path):
    path = tmp_path / "ablations.json"
    list(races.ablate("tiny", (1,), path))
    before = json.loads(path.read_text())["tiny"]
    found = [races.at_full_length("another", "tiny", seed, path) for seed in (1, 2)]
    after = json.loads(path.read_text())["tiny"]
    assert after.pop("full length") == found and after == before
    assert [(run["seed"], run["steps"]) for run in found] == [(1, 4), (2, 4)]
    assert races.at_full_length("another", "tiny", 1, path) == found[0]  # whatever the clock says
    assert found[0]["dev"] != found[1]["dev"]
    assert found[0]["command"] == 'lecture speedrun 1 --race tiny --variant "another"'


test_what_is_refused = refusals(
    (CourseError, "no race slowest; expected one of: fast, ", lambda: next(races.races([1], "slowest"))),
    (
        CourseError,
        "race lowest has no ablations; expected one of: fast, network",
        lambda: next(races.ablate("lowest")),
    ),
    (
        CourseError,
        "no variant 'without luck' of fast; expected one of: the recipe, without counts of the text",
        lambda: races.at_full_length("without luck", "fast", 1),
    ),
)


@pytest.mark.parametrize("name", list(races.ABLATION_STEPS))
def test_every_variant_changes_the_recipe_and_is_recorded_under_every_seed(name):
    table = races.variants(name)
    (_, recipe), *changed = table.items()
    assert all(variant != recipe for _, variant in changed)
    runs = json.loads(races.ABLATIONS.read_text())[name]["runs"]
    expected = {(variant, seed) for variant in table for seed in races.SEEDS}
    assert {(run["variant"], run["seed"]) for run in runs} == expected and len(runs) == len(expected)


# ---------------------------------------------------------------- the benchmark

SMALLEST = GPTConfig(block_size=8, n_embd=8, n_head=2, n_layer=1)


def test_tasks_take_turns_and_the_first_round_is_not_counted():
    calls = []
    seconds = bench.in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert calls == ["a", "b"] * 3
    assert set(seconds) == {"a", "b"} and min(seconds.values()) >= 0


def test_every_model_of_the_benchmark_trains():
    config = replace(SMALLEST, dropout=0.1)
    models = bench.MODELS | bench.FAST_KERNEL
    found = bench.training(config, batch_size=2, rounds=1, models=models)
    assert list(found) == list(models) and found[next(iter(models))]["ratio"] == 1
    assert all(model["tokens per second"] > 0 for model in found.values())


def test_every_way_of_writing_writes():
    for found in (bench.sampling(SMALLEST, new=3, rounds=1), bench.long_text(SMALLEST, rounds=1)):
        rates = list(found.values())
        assert rates[0]["ratio"] == 1 and all(rate["tokens per second"] > 0 for rate in rates)


def test_a_step_is_timed_with_each_number_of_threads_and_beside_a_busy_program(monkeypatch):
    monkeypatch.setattr(bench, "cores", lambda: 2)
    before, used = torch.get_num_threads(), []
    (found,) = bench.threads({"step": lambda: used.append(torch.get_num_threads())}, rounds=1).values()
    assert list(found) == ["idle, 1 thread", "idle, 2 threads", "busy, 1 thread", "busy, 2 threads"]
    assert set(used) == {1, 2} and torch.get_num_threads() == before


def test_writing_is_measured_with_threads_that_wait_awake(monkeypatch):
    monkeypatch.setenv("GOMP_SPINCOUNT", "given by the user")
    assert bench.awake(os.getenv, "GOMP_SPINCOUNT") == "given by the user"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    assert bench.awake(os.getenv, "GOMP_SPINCOUNT") == SPIN["GOMP_SPINCOUNT"]


def test_a_token_is_timed_after_the_first():
    came = []
    assert bench.seconds_a_token(lambda: (came.append(i) for i in range(4))) >= 0 and came == [0, 1, 2, 3]
