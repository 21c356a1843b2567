"""Pretraining: common passages, two stages of training, and the runs that measure them."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from lecture_lib import pretraining
from lecture_lib.base.errors import CourseError
from lecture_lib.course.experiments import pretraining as runs
from lecture_lib.fine_tuning import optimise
from lecture_lib.nanogpt import NanoGPT, NanoGPTConfig
from lecture_lib.pretraining import (
    PretrainedSpeedrunGPT,
    batch_losses,
    common_places,
    encode_plays,
    every_text,
    fingerprints,
    gentler,
    longest_common_passage,
    recounted_pretrained,
    watched,
)
from lecture_lib.speedrun import SpeedrunConfig, SpeedrunTraining
from lecture_lib.tokenization import CharTokenizer, load_splits

TINY = NanoGPTConfig(vocab_size=5, block_size=8, n_embd=8, n_head=2, n_layer=1)
IDS = (torch.arange(500) // 3) % 5


def longest_by_trying(a, b):
    passages = (a[i:j] for i in range(len(a)) for j in range(i, len(a) + 1))
    return max((len(passage) for passage in passages if passage in b), default=0)


def test_equal_passages_have_equal_fingerprints_and_others_differ():
    text = "".join(random.Random(1).choices("ab", k=400))
    for n in (1, 2, 7, 50, 400):
        found = fingerprints(text, n)
        passages = [text[i : i + n] for i in range(len(text) - n + 1)]
        assert found.shape == (len(passages),)
        assert len(np.unique(found)) == len(set(passages))
        assert dict(zip(passages, found, strict=True)) == {
            passage: found[passages.index(passage)] for passage in set(passages)
        }


def test_fingerprints_of_two_texts_can_be_compared():
    assert fingerprints("xxto be", 5)[-1] == fingerprints("to be or", 5)[0]
    assert list(common_places("to be or not to be", "it may be", 3)) == [2, 15]  # " be"


@pytest.mark.parametrize("seed", range(20))
def test_the_longest_common_passage_is_the_one_that_trying_all_finds(seed):
    draw = random.Random(seed)
    a, b = ("".join(draw.choices("abc", k=draw.randrange(40))) for _ in range(2))
    found = longest_common_passage(a, b)
    assert found in a and found in b and len(found) == longest_by_trying(a, b)


@pytest.mark.parametrize("length", range(1, 18))
def test_a_passage_of_any_length_is_found(length):
    passage = "abcdefghijklmnopq"[:length]
    assert longest_common_passage(f"<{passage}>" * 2, f"({passage})") == passage


def test_a_text_is_its_own_longest_passage():
    text = "a rose is a rose is a rose"
    assert longest_common_passage(text, text) == text == longest_common_passage(text, f"<{text}>")


def test_plays_are_encoded_one_after_another_in_two_parts_each():
    tokenizer = CharTokenizer("ab\n")
    ids, parts = encode_plays({"first": "abab", "second": "b"}, tokenizer, first=2)
    assert tokenizer.decode(ids) == "abab\n\nb\n\n"
    assert parts.tolist() == [4, 4, 5, 5, 5, 5, 6, 7, 7]
    assert encode_plays({"one": "abab"}, tokenizer)[1].tolist() == [0, 0, 1, 1, 1, 1]


def test_every_text_begins_with_the_training_split_and_has_no_val():
    ids, parts = every_text()
    train = load_splits()[1]["train"]
    assert torch.equal(ids[: len(train)], train)
    assert len(ids) == len(parts) == len(train) + 3_516_449 + 2 * 29
    assert parts[: len(train)].max() < parts[len(train) :].min()


def test_batches_come_from_the_text_and_teach_it():
    torch.manual_seed(0)
    model = NanoGPT(TINY)
    losses = optimise(model, batch_losses(model, IDS, 16), 60, 1e-2)
    assert losses[-1] < 0.8 < 1.5 < losses[0]  # ln 5 is 1.6; one token of three can't be told for sure


def test_a_watched_run_takes_the_same_steps():
    ends = []
    for look in (None, lambda step: None):
        torch.manual_seed(0)
        model = NanoGPT(TINY)
        losses = batch_losses(model, IDS, 4)
        optimise(model, watched(losses, look, 3) if look else losses, 7, 1e-2)
        ends.append(model.lm_head.weight.detach().clone())
    assert torch.equal(*ends)


def test_a_watched_run_is_looked_at_before_every_third_step():
    looked = []
    losses = watched(iter(torch.arange(8.0)), looked.append, 3, first=4)
    assert [loss.item() for loss in losses] == list(range(8)) and looked == [6, 9]


def test_a_watched_run_begins_with_step_0():
    looked = []
    assert len(list(watched(iter(torch.arange(3.0)), looked.append, 2))) == 3 and looked == [0, 2]


def test_a_pretrained_model_is_recounted_from_all_plays(monkeypatch):
    monkeypatch.setattr(pretraining, "every_text", lambda: (IDS, torch.arange(500) // 100))
    config = SpeedrunConfig(vocab_size=5, block_size=8, n_embd=8, n_head=2, n_layer=1, order=2)
    model = recounted_pretrained(config)
    assert type(model) is PretrainedSpeedrunGPT and model.prior.tables[0].counts.sum() == len(IDS) - 1
    expected = PretrainedSpeedrunGPT(config, IDS).prior.tables[0].counts
    assert torch.equal(model.prior.tables[0].counts, expected)


def test_gentler_changes_steps_and_rates_alone():
    recipe = SpeedrunTraining(batch_size=3)
    found = gentler(recipe, 40, 0.25)
    assert (found.max_iters, found.adam_rate, found.counts_rate, found.muon_rate) == (40, 1e-3, 0.025, 5e-3)
    assert gentler(found, recipe.max_iters, 4) == recipe


def test_the_pretrained_model_is_the_same_by_another_name():
    config = SpeedrunConfig(vocab_size=5, block_size=8, n_embd=8, n_head=2, n_layer=1, order=2)
    assert PretrainedSpeedrunGPT(config, IDS).eval()(IDS[None, :8])[0].shape == (1, 8, 5)


# ---------------------------------------------------------------- the recorded runs


@pytest.fixture
def short(monkeypatch):
    """Runs of a few steps on a small text, by small models, under two seeds."""
    texts = {name: (IDS, torch.arange(500) // 100) for name in ("tiny", "plays", "both")}
    texts |= {f"plays/{n}": (IDS[: 500 // n], torch.arange(500 // n) // 100) for n in (2, 4, 8)}
    monkeypatch.setattr(runs, "all_texts", lambda: texts)
    monkeypatch.setattr(runs, "load_splits", lambda: (None, {"val": IDS[:100]}))
    monkeypatch.setattr(runs, "SMALL", TINY)
    config = SpeedrunConfig(vocab_size=5, block_size=8, n_embd=8, n_head=2, n_layer=1, order=2)
    monkeypatch.setattr(runs, "COUNTING", config)
    monkeypatch.setattr(runs, "CROPS", replace(runs.CROPS, block_size=8, eval_iters=2))
    monkeypatch.setattr(runs, "LOOK_EVERY", 2)
    arms = runs.arms(runs.Stage("plays", 4, 1e-2), runs.Stage("tiny", 2, 1e-3))
    monkeypatch.setattr(runs, "ARMS", {"small": arms, "speedrun": arms})


@pytest.mark.parametrize("model", ["small", "speedrun"])
def test_interrupted_runs_go_on_where_they_stopped(short, tmp_path, model):
    path = tmp_path / "record.json"
    first = next(runs.pretrain(model, path))
    rest = list(runs.pretrain(model, path))
    series = json.loads(path.read_text())[model]
    assert series["runs"] == [first, *rest]
    pairs = [(run["arm"], run["seed"]) for run in series["runs"]]
    assert pairs == [(arm, seed) for seed in runs.SEEDS for arm in runs.ARMS[model]]
    assert list(runs.pretrain(model, path)) == []
    assert series["command"] == f"lecture pretrain {model}" and series["characters"]["plays/4"] == 125


def test_both_models_are_kept_in_one_file(short, tmp_path):
    for model in ("small", "speedrun"):
        next(runs.pretrain(model, tmp_path / "record.json"))
    assert list(json.loads((tmp_path / "record.json").read_text())) == ["small", "speedrun"]


def test_the_curve_goes_through_both_stages(short, tmp_path):
    fine_tuned = next(
        run for run in runs.pretrain("small", tmp_path / "record.json") if run["arm"] == "fine-tuned"
    )
    assert fine_tuned["curve"]["steps"] == [0, 2, 4, 6]
    assert len(fine_tuned["curve"]["val"]) == len(fine_tuned["curve"]["train"]) == 4


def test_every_run_of_a_model_has_as_many_steps():
    for arms in runs.ARMS.values():
        steps = {
            sum(stage.steps for stage in arm)
            for name, arm in arms.items()
            if not name.endswith(("fewer steps", "longer"))
        }
        assert len(steps) == 1


def test_an_unknown_model_is_refused(tmp_path):
    with pytest.raises(CourseError, match="no model 'large'; expected one of: small, speedrun"):
        next(runs.pretrain("large", tmp_path / "record.json"))
