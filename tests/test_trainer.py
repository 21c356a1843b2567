"""The training script, chapter 13c: recipe, accumulation, resumption, logs and several processes."""

import itertools
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import Suite, close, draw_ids, seeded, suite_tests
from torch.utils.flop_counter import FlopCounterMode

from lecture_lib import bigram, long_run, recipe, throughput, trainer
from lecture_lib.base.errors import CourseError
from lecture_lib.base.paths import ROOT
from lecture_lib.base.threads import fixed
from lecture_lib.nanogpt import NanoGPT, NanoGPTConfig
from lecture_lib.tokenization import CharTokenizer, load_splits
from lecture_lib.training import estimate_loss

LETTERS = "\nabcdefghij"
IDS = draw_ids(400)
SPLITS = {"train": IDS[:40], "val": IDS[40:]}  # so little to learn from that the val loss soon rises
EXACT = ("step", "lr", "loss", "grad_norm", "train", "val")  # the columns that are no speed
QUICK = {
    "batch_size": 8,
    "block_size": 6,
    "max_iters": 13,
    "eval_interval": 4,
    "eval_iters": 2,
    "learning_rate": 0.1,
    "min_lr": 0.01,
    "warmup_iters": 3,
    "grad_clip": 0.8,
    "micro_batches": 2,
    "log_interval": 3,
}


@pytest.fixture(autouse=True)
def no_samples(monkeypatch):
    """A run's closing sample takes longer than these runs."""
    monkeypatch.setattr(long_run, "sample_text", lambda *_, **__: "")


def make_model(**changes) -> NanoGPT:
    sizes = {"vocab_size": 11, "block_size": 6, "n_embd": 8, "n_head": 1, "n_layer": 1, "dropout": 0.2}
    sizes |= {"tied": False, "bias": False}
    return seeded(NanoGPT, NanoGPTConfig(**{**sizes, **changes}))


def make(library, folder, *, dropout=0.2, save_seconds=300.0, processes=None, model=None, **changes):
    """A trainer of a tiny model."""
    config = library.TrainerConfig(**{**QUICK, **changes})
    others = {"processes": processes} if processes else {}
    return library.Trainer(
        model or make_model(dropout=dropout),
        CharTokenizer(LETTERS),
        config,
        folder,
        {"command": "pytest", "seed": 1337},
        save_seconds=save_seconds,
        **others,
    )


def flat(tensors) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def at_each_step(run, look) -> None:
    """Call look(number of the step) right before the optimizer changes the parameters."""
    take, number = run.optimizer.step, itertools.count()

    def watched():
        look(next(number))
        take()

    run.optimizer.step = watched


class Unplugged(Exception):
    pass


def unplug(run, at: int) -> None:
    """End the run with an exception at its piece number `at`."""
    seen = []

    def hook(model, inputs):
        if model.training:
            seen.append(None)
            if len(seen) > at:
                raise Unplugged

    run.model.register_forward_pre_hook(hook)


optimizing, training = Suite(recipe), Suite(trainer)


# ---------------------------------------------------------------- the recipe: who decays


@optimizing.holds
def vectors_do_not_decay(library):
    model = make_model()
    decay = {id(p): group["weight_decay"] for group in library.weight_decay_groups(model, 0.3)
             for p in group["params"]}  # fmt: skip
    for name, p in model.named_parameters():
        assert decay.get(id(p), 0.0) == (0.3 if p.dim() == 2 else 0.0), name


@optimizing.holds
def each_parameter_once(library):
    model = make_model(tied=True)
    grouped = [id(p) for group in library.weight_decay_groups(model, 0.3) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


@optimizing.holds
def frozen_ones_left_out(library):
    model = make_model()
    model.token_embedding_table.weight.requires_grad_(False)
    model.lm_head.bias.requires_grad_(False)
    grouped = {id(p) for group in library.weight_decay_groups(model, 0.3) for p in group["params"]}
    assert grouped == {id(p) for p in model.parameters() if p.requires_grad}


# ---------------------------------------------------------------- the recipe: schedule


def rates(library, warmup_iters=4, max_iters=11) -> list[float]:
    return [library.warmup_cosine(step, 1.0, 0.1, warmup_iters, max_iters) for step in range(max_iters)]


@optimizing.holds
def warm_up_is_a_line(library):
    assert rates(library)[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])


@optimizing.holds
def last_rate_is_lowest(library):
    for warmup_iters in (0, 1, 4, 10):
        assert rates(library, warmup_iters)[-1] == pytest.approx(0.1)


@optimizing.holds
def falls_as_a_cosine(library):
    down = rates(library, warmup_iters=1, max_iters=5)  # by hand: cos of 45, 90, 135, 180 degrees
    root = math.sqrt(0.5)
    assert down == pytest.approx([1.0, 0.55 + 0.45 * root, 0.55, 0.55 - 0.45 * root, 0.1])


optimizing.faults = [
    ("all decay", '"weight_decay": 0.0', '"weight_decay": weight_decay', vectors_do_not_decay),
    ("none decays", '"weight_decay": weight_decay', '"weight_decay": 0.0', vectors_do_not_decay),
    ("vectors left out", "if p.dim() < 2", "if p.dim() < 1", each_parameter_once),
    ("vectors in both groups", "if p.dim() >= 2", "if p.dim() >= 1", each_parameter_once),
    ("shared ones twice", "model.parameters()",
     "(p for m in model.modules() for p in m.parameters(recurse=False))", each_parameter_once),
    ("biases left out", "model.parameters() if p.requires_grad",
     "model.parameters() if p.requires_grad and p.dim() > 1", each_parameter_once),
    ("frozen ones too", " if p.requires_grad", "", frozen_ones_left_out),
    ("warm-up from 0", "learning_rate * (step + 1)", "learning_rate * step", warm_up_is_a_line),
    ("warm-up never at the top", "/ warmup_iters", "/ (warmup_iters + 1)", warm_up_is_a_line),
    ("lowest rate never reached", "(step + 1 - warmup_iters)", "(step - warmup_iters)", last_rate_is_lowest),
    ("lowest rate too early", "(max_iters - warmup_iters)", "(max_iters - 1 - warmup_iters)",
     falls_as_a_cosine),
    ("down to 0", "min_lr + (learning_rate - min_lr)", "learning_rate", last_rate_is_lowest),
    ("a straight line down", "(1 + math.cos(math.pi * done)) / 2", "(1 - done)", falls_as_a_cosine),
    ("no warm-up", "step < warmup_iters", "step < 0", warm_up_is_a_line),
]  # fmt: skip


@settings(deadline=None)
@given(max_iters=st.integers(1, 60), data=st.data())
def test_the_rate_rises_then_falls_and_stays_in_its_range(max_iters, data):
    warmup_iters = data.draw(st.integers(0, max_iters - 1))
    found = rates(recipe, warmup_iters, max_iters)
    top = max(warmup_iters - 1, 0)
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
    assert all(0 < rate <= 1 for rate in found) and found[-1] == pytest.approx(0.1)


# ---------------------------------------------------------------- throughput


@pytest.mark.parametrize(("n_layer", "n_head", "n_embd", "T"), [(1, 1, 4, 3), (2, 2, 8, 6), (3, 4, 16, 5)])
def test_operations_are_what_torch_counts(n_layer, n_head, n_embd, T):
    with torch.device("meta"):  # where attention is made of products that torch counts
        model = make_model(n_layer=n_layer, n_head=n_head, n_embd=n_embd, block_size=T)
        idx = torch.zeros(2, T, dtype=torch.int64)
        with FlopCounterMode(display=False) as counter:
            model(idx, idx)[1].backward()
    assert counter.get_total_flops() == throughput.training_flops(model) * idx.numel()


def test_the_peak_is_measured_once_and_plausible():
    cpu = torch.device("cpu")
    assert 1e8 < throughput.peak_flops(cpu, torch.float32) < 1e13
    assert throughput.peak_flops(cpu, torch.float32) == throughput.peak_flops(cpu, torch.float32)
    state = torch.get_rng_state()
    throughput.peak_flops.__wrapped__(cpu, torch.float32)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_peak_is_what_two_matrices_take_at_their_fastest(monkeypatch):
    monkeypatch.setattr("timeit.repeat", lambda job, number, repeat: [0.5, 0.25, 1.0])
    for device, size in (("cpu", 512), ("meta", 8192)):
        peak = throughput.peak_flops.__wrapped__(torch.device(device), torch.float32)
        assert peak == 2 * size**3 / 0.25


# ---------------------------------------------------------------- a run in one process


@training.holds
def steps_take_the_whole_batchs_gradient(library, tmp_path):
    run, lengths, batches = make(library, tmp_path, dropout=0.0), [], set()

    def look(step):
        taken = flat(p.grad for p in run.model.parameters())
        xb, yb = (torch.cat(pieces) for pieces in run.batch(step, SPLITS))  # (B, T), (B, T)
        assert xb.shape == (8, 6)
        batches.add(tuple(xb.flatten().tolist()))
        whole = flat(torch.autograd.grad(run.model(xb, yb)[1], list(run.model.parameters())))
        lengths.append(whole.norm().item())
        close(taken, whole * min(1.0, 0.8 / lengths[-1]), atol=1e-5)
        close(run.log.latest["grad_norm"], whole.norm(), rtol=1e-4)

    at_each_step(run, look)
    run.train(SPLITS)
    assert len(lengths) == len(batches) == 13 and min(lengths) < 0.8 < max(lengths)  # both cases occurred


@training.holds
def rates_and_decay_are_set(library, tmp_path):
    run, found = make(library, tmp_path, weight_decay=0.3), []
    at_each_step(run, lambda _: found.append({group["lr"] for group in run.optimizer.param_groups}))
    run.train(SPLITS)
    assert found == [{recipe.warmup_cosine(step, 0.1, 0.01, 3, 13)} for step in range(13)]
    decay = {id(p): group["weight_decay"] for group in run.optimizer.param_groups for p in group["params"]}
    assert {id(p): 0.3 * (p.dim() == 2) for p in run.model.parameters()} == decay


@training.holds
def pieces_equal_the_whole(library, tmp_path):
    ends, losses = [], []
    for pieces in (1, 4):
        run = make(library, tmp_path / str(pieces), dropout=0.0, micro_batches=pieces, max_iters=6)
        run.train(SPLITS)
        ends.append(flat(run.model.parameters()))
        log = trainer.read_log(run.log.path)
        losses.append(np.array([log["loss"], log["grad_norm"]]))
    close(*ends, atol=1e-3)
    np.testing.assert_allclose(*losses, rtol=1e-3)


@training.holds
def resumed_like_whole(library, tmp_path):
    whole = make(library, tmp_path / "whole", save_seconds=0)
    whole.train(SPLITS)
    cut = make(library, tmp_path / "cut", save_seconds=0)
    unplug(cut, at=2 * 7 + 1)  # the first of the two pieces of step 7 is lost
    with pytest.raises(Unplugged):
        cut.train(SPLITS)
    resumed = make(library, tmp_path / "cut", save_seconds=0)
    torch.manual_seed(99)  # another process, another state of the generator
    resumed.train(SPLITS)
    assert resumed.history == whole.history
    assert torch.equal(flat(whole.model.parameters()), flat(resumed.model.parameters()))


@training.holds
def log_survives_an_interruption(library, tmp_path):
    """The plug is pulled five steps after the state was saved, and in the middle of a row of the log."""
    run = make(library, tmp_path)
    unplug(run, at=2 * 11)
    between_steps = run.between_steps

    def save_once(step):
        between_steps(step)
        if step == 6:
            run.save(step)

    run.between_steps = save_once
    with pytest.raises(Unplugged):
        run.train(SPLITS)
    with run.log.path.open("a") as log:
        log.write("1")  # of "12,0.01,...", cut short
    resumed = make(library, tmp_path)
    resumed.train(SPLITS)
    log = trainer.read_log(run.log.path)
    rows = {column: log[column].tolist() for column in library.RunLog.COLUMNS}
    assert rows["step"] == [0, 3, 4, 6, 8, 9, 12, 13]
    estimated = [step for step, val in zip(rows["step"], rows["val"], strict=True) if not math.isnan(val)]
    assert estimated == resumed.history.steps == [0, 4, 8, 12, 13]
    for column in ("lr", "loss", "grad_norm", "tokens_per_second", "mfu"):
        assert [math.isnan(value) for value in rows[column]] == [True] + 7 * [False], column
    assert rows["lr"][1:] == [
        recipe.warmup_cosine(int(step) - 1, 0.1, 0.01, 3, 13) for step in rows["step"][1:]
    ]


@training.holds
def best_model_is_kept(library, tmp_path):
    """The result has the weights of the lowest estimate, here not the last one."""
    run, at_estimate = make(library, tmp_path, warmup_iters=0, max_iters=24), {}
    between_steps = run.between_steps

    def remember(step):
        if run.history.steps[-1] == step:
            at_estimate[run.history.val[-1]] = flat(run.model.parameters()).clone()
        between_steps(step)

    run.between_steps = remember
    val = run.train(SPLITS).val
    assert min(val) < val[-1]
    weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert torch.equal(flat(weights[name] for name, _ in run.model.named_parameters()), at_estimate[min(val)])
    left = sorted(path.name for path in tmp_path.iterdir() if path.name != ".lock")
    assert left == ["log.csv", "model.json", "model.safetensors"]


@training.holds
def estimates_repeat_up_to_the_last_step(library, tmp_path):
    run = make(library, tmp_path)
    history = run.train(SPLITS)
    library.reseed(1337, 0, "estimate")
    assert history.val[-1] == estimate_loss(run.model, SPLITS, run.config)["val"]
    still = make(library, tmp_path / "still", max_iters=5, learning_rate=1e-30, min_lr=0.0, weight_decay=0.0)
    assert len(set(still.train(SPLITS).val)) == 1


# ---------------------------------------------------------------- several processes, one after the other


class Apart(trainer.Processes):
    """One of several processes that never meets the others."""

    def parallel(self, model):
        self.waits.append(0)

        def no_sync():
            self.waits[-1] += 1
            return nullcontext()

        model.no_sync = no_sync
        return model

    def mean(self, values):
        return values

    waits: list = []  # noqa: RUF012


@training.holds
def ranks_share_one_batch(library, tmp_path):
    """The gradients of two processes, averaged, are the one process's, dropout included."""

    def first_step(rank: int, count: int):
        shares = planted_processes(library, rank, count)
        run = make(library, tmp_path, processes=shares, micro_batches=4)
        seen = []
        run.model.register_forward_pre_hook(lambda model, inputs: seen.append(inputs[0]))
        loss = run.accumulate(0, SPLITS)
        return torch.cat(seen), flat(p.grad for p in run.model.parameters()), loss

    rows, gradient, loss = first_step(0, 1)
    assert rows.shape == (8, 6)
    parts = [first_step(rank, 2) for rank in range(2)]
    assert torch.equal(torch.cat([part[0] for part in parts]), rows)  # none twice, none left out
    close(sum(part[1] for part in parts) / 2, gradient, atol=1e-6)
    close(sum(part[2] for part in parts) / 2, loss, atol=1e-6)
    assert Apart.waits == [0, 1, 1]  # of two pieces, the first one isn't talked about


def planted_processes(library, rank: int, count: int):
    """A process of the library under test, cut off from the others."""
    if rank == 0 and count == 1:
        Apart.waits.clear()
    cut_off = {name: vars(Apart)[name] for name in ("parallel", "mean", "waits")}
    return type("CutOff", (library.Processes,), cut_off)(rank, count)


training.faults = [
    ("pieces not divided", "[1] / len(mine)", "[1]",
     (steps_take_the_whole_batchs_gradient, pieces_equal_the_whole)),
    ("divided by all pieces", "[1] / len(mine)", "[1] / self.config.micro_batches", ranks_share_one_batch),
    ("last piece alone", "piece.backward()", "self.model.zero_grad(); piece.backward()",
     (steps_take_the_whole_batchs_gradient, pieces_equal_the_whole)),
    ("gradients never cleared", "self.optimizer.zero_grad()", "pass",
     (steps_take_the_whole_batchs_gradient, resumed_like_whole)),
    ("clipping unused", "c.grad_clip or math.inf", "math.inf", steps_take_the_whole_batchs_gradient),
    ("clipping before all pieces are added", "piece.backward()",
     "piece.backward(); nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)",
     steps_take_the_whole_batchs_gradient),
    ("the rate of the next step", "warmup_cosine(step,", "warmup_cosine(step + 1,",
     (rates_and_decay_are_set, log_survives_an_interruption)),
    ("the rate not set", 'group["lr"] = lr', "pass", rates_and_decay_are_set),
    ("all parameters decay", "AdamW(groups,",
     "AdamW(self.model.parameters(), weight_decay=c.weight_decay, lr=", rates_and_decay_are_set),
    ("the same batch at each step", 'step, "batch")', '0, "batch")', steps_take_the_whole_batchs_gradient),
    ("dropout follows the past", 'reseed(self.facts["seed"], step, "dropout", piece=i)', "pass",
     ranks_share_one_batch),
    ("batch follows the past", 'reseed(self.facts["seed"], step, "batch")', "pass",
     steps_take_the_whole_batchs_gradient),
    ("ranks see the same pieces", "return range(self.rank * each, (self.rank + 1) * each)",
     "return range(each)", ranks_share_one_batch),
    ("ranks draw for themselves", 'step, "batch")', '99 * self.processes.rank, "batch")',
     ranks_share_one_batch),
    ("every piece is talked about", "i != mine[-1]", "False", ranks_share_one_batch),
    ("no piece is talked about", "i != mine[-1]", "True", ranks_share_one_batch),
    ("last model kept", "super().between_steps(step)", 'self.keep("unfinished", self.model)',
     best_model_is_kept),
    ("rows twice after an interruption", "<= last]", "<= last + 4]", log_survives_an_interruption),
    ("rows lost after an interruption", "<= last]", "< last - 2]", log_survives_an_interruption),
    ("a cut row kept", r",[\w.,+-]*\n)", r".*\n?)", log_survives_an_interruption),
    ("log begun anew", "self.first_step if resumed else -1", "-1", log_survives_an_interruption),
    ("begins again with step 0", "if not resumed:", "if True:", log_survives_an_interruption),
    ("no estimate at the end", " or step == c.max_iters", "",
     (log_survives_an_interruption, estimates_repeat_up_to_the_last_step)),
    ("estimates follow the past", 'reseed(self.facts["seed"], 0, "estimate")', "pass",
     estimates_repeat_up_to_the_last_step),
]  # fmt: skip

test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(optimizing, training)


@pytest.mark.parametrize("forgetful", [torch.optim.AdamW, NanoGPT], ids=lambda kind: kind.__name__)
def test_a_resumption_that_forgets_is_caught(forgetful, tmp_path, monkeypatch):
    monkeypatch.setattr(forgetful, "load_state_dict", lambda *_: None)
    with pytest.raises(AssertionError):
        resumed_like_whole(trainer, tmp_path)


# ---------------------------------------------------------------- interruptions


def test_a_run_that_is_asked_to_stop_does_so_between_two_steps_with_its_state_saved(tmp_path, capsys):
    whole = make(trainer, tmp_path / "whole")
    whole.train(SPLITS)
    asked = make(trainer, tmp_path / "cut")
    at_each_step(asked, lambda step: setattr(asked, "stopping", step == 4))
    with pytest.raises(KeyboardInterrupt):
        asked.train(SPLITS)
    assert "stopped before step 5; the same command goes on from there" in capsys.readouterr().out
    resumed = make(trainer, tmp_path / "cut")
    resumed.train(SPLITS)
    assert "going on from step 5" in capsys.readouterr().out
    assert torch.equal(flat(whole.model.parameters()), flat(resumed.model.parameters()))


def test_a_second_signal_ends_at_once(tmp_path, monkeypatch):
    handlers = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    run = make(trainer, tmp_path)
    run.stop(signal.SIGTERM, None)
    assert run.stopping and handlers == {signal.SIGTERM: signal.SIG_DFL}


def test_an_interrupted_run_with_other_settings_is_refused(tmp_path):
    cut = make(trainer, tmp_path, save_seconds=0)
    unplug(cut, at=9)
    with pytest.raises(Unplugged):
        cut.train(SPLITS)
    with pytest.raises(CourseError, match=r"other settings: .*'weight_decay': 0.1.*'weight_decay': 0.2"):
        make(trainer, tmp_path, weight_decay=0.2).train(SPLITS)
    state = tmp_path / "state.pt"
    for damaged in (state.read_bytes()[:2000], b"", b"no state"):
        state.write_bytes(damaged)
        with pytest.raises(CourseError, match=r"state.pt is damaged.*delete it to start again"):
            make(trainer, tmp_path).train(SPLITS)


def test_a_finished_run_is_not_replaced_by_another(tmp_path):
    first = make(trainer, tmp_path).train(SPLITS)
    with pytest.raises(CourseError, match=r"result of another run, which differs in: training; give"):
        make(trainer, tmp_path, weight_decay=0.2).train(SPLITS)
    again = make(trainer, tmp_path)
    again.facts["seed"] += 1
    with pytest.raises(CourseError, match="differs in: seed"):
        again.train(SPLITS)
    assert make(trainer, tmp_path).train(SPLITS) == first  # the same once more may be written
    (tmp_path / "model.json").write_text("no card")
    with pytest.raises(CourseError, match=r"model.json is damaged, or no JSON file .*delete it"):
        make(trainer, tmp_path).train(SPLITS)


def test_compiling_needs_a_compiler(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert not any(trainer.compiles(choice, on_cuda=True) for choice in ("auto", "off"))
    with pytest.raises(
        CourseError, match=r"compile is on: .* none of g\+\+, clang\+\+, c\+\+ was found; install"
    ):
        trainer.compiles("on", on_cuda=False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert [trainer.compiles(choice, on_cuda=True) for choice in ("auto", "on", "off")] == [True, True, False]
    assert not trainer.compiles("auto", on_cuda=False)


# ---------------------------------------------------------------- settings and command line


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; expected a positive number"),
        ({"min_lr": 0.2}, "min_lr is 0.2, learning_rate is 0.001; expected min_lr to be at most that"),
        ({"min_lr": -1.0}, "min_lr is -1.0; expected 0 or more"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1; expected 0 or more"),
        ({"beta2": 1.5}, "beta2 is 1.5; expected 0 up to, not including, 1"),
        ({"grad_clip": float("nan")}, "grad_clip is nan; expected 0 or more"),
        ({"warmup_iters": 5000}, "warmup_iters is 5000, max_iters is 5000; expected a warm-up that ends"),
        ({"micro_batches": 3}, "batch_size is 16, micro_batches is 3; expected micro_batches to divide"),
        ({"micro_batches": 0}, "micro_batches is 0; expected at least 1"),
        ({"log_interval": 0}, "log_interval is 0; expected at least 1"),
        ({"device": "gpu"}, "device is 'gpu'; expected one of: auto, cuda, mps, cpu"),
        ({"dtype": "float16"}, "dtype is 'float16'; expected one of: auto, float32, bfloat16"),
        ({"compile": "yes"}, "compile is 'yes'; expected one of: auto, on, off"),
    ],
)
def test_settings_that_cannot_work(wrong, message, capsys):
    with pytest.raises(ValueError, match=message):
        trainer.TrainerConfig(**wrong)
    words = [word for name, value in wrong.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    with pytest.raises(SystemExit) as end:
        trainer.main(words)
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_processes_that_cannot_share(tmp_path):
    with pytest.raises(
        CourseError, match="micro_batches is 2, and there are 3 processes; expected a multiple"
    ):
        make(trainer, tmp_path, processes=trainer.Processes(0, 3))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_there(tmp_path):
    with pytest.raises(SystemExit, match="trainer: device is cuda: this machine has no cuda; expected auto"):
        trainer.main(["--device", "cuda", "--folder", str(tmp_path)])


def test_a_seed_below_zero(capsys):
    with pytest.raises(SystemExit):
        trainer.main(["--seed", "-1"])
    assert "seed is -1; expected 0 or more" in capsys.readouterr().err


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_no_model(tmp_path):
    run = make(trainer, tmp_path, learning_rate=1e9, grad_clip=0.0)
    with pytest.raises(CourseError, match=r"loss is nan at step \d+, .* learning_rate is 1000000000"):
        run.train(SPLITS)
    assert not (tmp_path / "model.json").exists()


def test_a_model_that_cannot_be(capsys):
    with pytest.raises(SystemExit):
        trainer.main(["--n-head", "5"])
    assert "n_embd is 64, n_head is 5" in capsys.readouterr().err


@pytest.mark.parametrize("script", [bigram, trainer])
def test_a_context_as_long_as_the_text(script, capsys):
    with pytest.raises(SystemExit):
        script.main(["--block-size", "111540"])
    assert "block_size is 111540; expected 1 to 111539 for 111540 ids" in capsys.readouterr().err


def test_help_names_every_setting(capsys):
    with pytest.raises(SystemExit):
        trainer.main(["--help"])
    options = capsys.readouterr().out
    for name in (*asdict(trainer.TrainerConfig()), *trainer.MODEL_OPTIONS, "seed", "folder", "save_seconds"):
        assert f"--{name.replace('_', '-')} " in options


# ---------------------------------------------------------------- other precisions


def test_products_in_bfloat16_change_little(tmp_path):
    losses = {}
    for dtype in ("float32", "bfloat16"):
        run = make(trainer, tmp_path / dtype, dtype=dtype, max_iters=4, learning_rate=0.01)
        losses[dtype] = run.train(SPLITS).val[-1]
        assert {p.dtype for p in run.model.parameters()} == {torch.float32}
    assert 0 < abs(losses["float32"] - losses["bfloat16"]) < 0.02


# ---------------------------------------------------------------- shared weights


def test_a_model_with_a_shared_matrix_is_trained_kept_and_resumed(tmp_path):
    ends = []
    for folder, at in (("whole", 99), ("cut", 9)):
        run = make(trainer, tmp_path / folder, save_seconds=0, model=make_model(tied=True))
        unplug(run, at)
        if at == 9:
            with pytest.raises(Unplugged):
                run.train(SPLITS)
            run = make(trainer, tmp_path / folder, save_seconds=0, model=make_model(tied=True))
        run.train(SPLITS)
        assert run.model.lm_head.weight is run.model.token_embedding_table.weight
        ends.append(flat(run.model.parameters()))
    assert torch.equal(*ends)
    kept = safetensors.torch.load_file(tmp_path / "cut" / "model.safetensors")
    assert torch.equal(kept["lm_head.weight"], kept["token_embedding_table.weight"])


# ---------------------------------------------------------------- the script itself, in one process or two

SCRIPT = trainer.TrainerConfig(8, 8, 24, 8, 2, 1e-2, 1e-3, warmup_iters=3, micro_batches=2, log_interval=4)
SIZES = {"n_layer": 1, "n_head": 2, "n_embd": 16, "dropout": 0.2}


def script(folder: Path, *launcher: str, **changes) -> subprocess.Popen:
    """The script started as a process of its own, with SCRIPT's settings and SIZES."""
    options = {**asdict(SCRIPT), **SIZES, "folder": folder, **changes}
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, *launcher, "-m", "lecture_lib.trainer", *words]
    environment = {**os.environ, **fixed(1)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def here(folder: Path, config=SCRIPT, **how):
    """The script's run in this process."""
    tokenizer, splits = load_splits()
    model = trainer.new_model(tokenizer.vocab_size, config.block_size, SIZES, seed=1337)
    facts = {"command": "python -m lecture_lib.trainer", "seed": 1337}
    run = trainer.Trainer(model, tokenizer, config, folder, facts, **how)
    run.train(splits)
    return run


def same_result(one: Path, other: Path, rtol: float, atol: float) -> None:
    close(*(safetensors.torch.load_file(folder / "model.safetensors") for folder in (one, other)), atol, rtol)
    logs = [trainer.read_log(folder / "log.csv") for folder in (one, other)]
    for column in EXACT:
        np.testing.assert_allclose(*(log[column] for log in logs), rtol, atol)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_disk_that_is_full_when_a_row_is_due_is_named():
    log = trainer.RunLog(Path("/dev/full"), tokens=1, mfu=1.0)
    with pytest.raises(CourseError, match=r"/dev/full can't be read or written: .*Free some space"):
        log.append(1, {})


def test_the_speed_is_that_of_the_steps_since_the_row_before(tmp_path, monkeypatch):
    clock = iter((100.0, 200.0, 204.0))  # at the log's beginning, twice, and when it's measured
    monkeypatch.setattr(trainer.time, "perf_counter", lambda: next(clock))
    log = trainer.RunLog(tmp_path / "log.csv", tokens=50, mfu=0.001)
    log.begin(last=10)
    assert log.measured(10) == {}
    assert log.measured(18) == {"tokens_per_second": 100, "mfu": 0.1}  # 8 steps of 50 tokens in 4 s


def test_one_process_of_several_is_enough_to_stop_all(monkeypatch):
    monkeypatch.setattr(trainer.Processes, "mean", lambda self, flag: flag / self.count)  # the others go on
    one_of_three = trainer.Processes(0, 3)
    assert one_of_three.any(True, torch.device("cpu")) and not one_of_three.any(False, torch.device("cpu"))


def test_damaged_rows_of_a_log_are_left_out_when_the_run_goes_on(tmp_path):
    log = trainer.RunLog(tmp_path / "log.csv", tokens=1, mfu=1.0)
    log.path.write_bytes(b"step,lr\n10,0.1,-1e-05,nan,,\n\0\0\0\n2\xff0,0.1\n20,0.2\n30,0.3\n40,0.")
    log.begin(last=20)
    assert log.path.read_text().splitlines()[1:] == ["10,0.1,-1e-05,nan,,", "20,0.2"]


def test_no_command_for_several_processes_needs_the_machine_s_own_name():
    """Where that can't be resolved, torchrun would wait for minutes."""
    texts = [
        (ROOT / name).read_text(encoding="utf-8") for name in ("docs/guide.md", "notebooks/13c_trainer.ipynb")
    ]
    commands = [
        line
        for text in texts
        for line in text.splitlines()
        if "--standalone" in line and "lecture_lib" in line
    ]
    assert len(commands) == 2 and all("--local-addr localhost" in command for command in commands)


def test_measuring_the_peak_loads_nothing_that_speaks_of_cuda():
    """torch.utils.cpp_extension warns on stderr where there is CUDA's compiler but no GPU."""
    code = "import sys, lecture_lib.throughput; print('torch.utils.cpp_extension' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_two_processes_give_what_one_gives(tmp_path):
    here(tmp_path / "one")
    launcher = (
        *("-m", "torch.distributed.run", "--standalone"),
        *("--local-addr", "localhost", "--nproc-per-node", "2"),
    )
    process = script(tmp_path / "two", *launcher)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    same_result(tmp_path / "one", tmp_path / "two", rtol=1e-4, atol=1e-5)
    assert out.count("processes: 2") == 1 and out.count("step     0:") == 1  # only one prints


def test_a_process_that_is_terminated_goes_on_where_it_was(tmp_path):
    long = replace(SCRIPT, max_iters=120, eval_interval=40)
    here(tmp_path / "whole", long)
    process = script(tmp_path / "cut", max_iters=120, eval_interval=40)
    log, patience = tmp_path / "cut" / "log.csv", time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") > 4):
        assert process.poll() is None and time.monotonic() < patience
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "stopped before step" in out and err == ""
    resumed = here(tmp_path / "cut", long)
    assert len(resumed.history.steps) == 4
    same_result(tmp_path / "whole", tmp_path / "cut", rtol=0, atol=0)
