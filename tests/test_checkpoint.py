"""Checkpoints and long runs of chapter 10b: what they keep, what they refuse, and that nothing is lost."""

import contextlib
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from kit import Suite, draw_ids, raises, seeded, suite_tests

from lecture_lib import long_run
from lecture_lib.base.errors import CourseError
from lecture_lib.base.paths import DATA, SHIPPED
from lecture_lib.base.records import read_json
from lecture_lib.checkpoint import CHECKPOINT_KINDS, checkpoint_kind, load_checkpoint, save_checkpoint
from lecture_lib.course import cli
from lecture_lib.gpt import GPT, GPTConfig
from lecture_lib.nanogpt import NanoGPT, NanoGPTConfig
from lecture_lib.tokenization import CharTokenizer, load_splits
from lecture_lib.training import TrainConfig, estimate_loss

LETTERS = "\nabcdefghij"
IDS = draw_ids(400)
SPLITS = {"train": IDS[:30], "val": IDS[30:]}  # so little to learn from that the val loss soon rises
CONFIG = TrainConfig(
    batch_size=4, block_size=6, max_iters=12, eval_interval=4, eval_iters=2, learning_rate=0.1
)


def make(**changes) -> GPT:
    sizes = {"vocab_size": 11, "block_size": 6, "n_embd": 8, "n_head": 2, "n_layer": 1, "dropout": 0.2}
    return seeded(GPT, GPTConfig(**{**sizes, **changes}))


@pytest.fixture
def saved(tmp_path) -> Path:
    save_checkpoint(tmp_path / "model", make(), CharTokenizer(LETTERS), {"val": 1.5})
    return tmp_path / "model"


# ---------------------------------------------------------------- saving and loading


def test_what_was_saved_comes_back(saved):
    model, tokenizer, card = load_checkpoint(saved)
    idx = IDS[:12].view(2, 6)
    assert torch.equal(model(idx)[0], make().eval()(idx)[0])
    assert not model.training
    assert tokenizer.chars == list(LETTERS)
    assert card["kind"] == "GPT" and card["val"] == 1.5 and card["model"] == asdict(make().config)


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_either_file_names_the_checkpoint(saved, suffix):
    assert load_checkpoint(saved.with_suffix(suffix))[2]["val"] == 1.5


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_missing_file(saved, suffix):
    saved.with_suffix(suffix).unlink()
    with pytest.raises(CourseError, match=rf"cannot read .*model\{suffix}: No such file"):
        load_checkpoint(saved)


def test_truncated_weights(saved):
    weights = saved.with_suffix(".safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CourseError, match=r"model.safetensors \([\d,]+ bytes\) has SHA-256 .* truncated"):
        load_checkpoint(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"characters": "ab", "sha256": "", "model": 3}'])
def test_a_json_that_is_no_card(saved, text):
    saved.with_suffix(".json").write_text(text)
    with pytest.raises(CourseError, match=r"model.json is not the JSON of a checkpoint of this course"):
        load_checkpoint(saved)


def change_card(saved: Path, **changes) -> None:
    """Change entries of the card; those that become None are left out."""
    card = json.loads(saved.with_suffix(".json").read_text()) | changes
    card = {name: value for name, value in card.items() if value is not None}
    saved.with_suffix(".json").write_text(json.dumps(card))


@pytest.mark.parametrize(("kind", "config"), [(GPT, GPTConfig), (NanoGPT, NanoGPTConfig)])
def test_a_card_from_before_kinds_is_known_by_its_sizes(saved, kind, config):
    model = kind(config(11, 6, 8, 2, 1))
    save_checkpoint(saved, model, CharTokenizer(LETTERS), {})
    change_card(saved, kind=None)
    assert type(load_checkpoint(saved)[0]) is kind


@pytest.mark.parametrize("changes", [{"kind": "LSTM"}, {"kind": None, "model": {"layers": 3}}])
def test_an_unknown_kind_is_named_beside_the_known_ones(saved, changes):
    change_card(saved, **changes)
    message = f"model.json: the kind of model is {changes['kind']}; expected one of: GPT, NanoGPT"
    with pytest.raises(CourseError, match=message):
        load_checkpoint(saved)


def test_a_kind_whose_module_is_not_imported():
    load = "from lecture_lib.checkpoint import *; from pathlib import Path; load_checkpoint(Path({!r}))"
    command = [sys.executable, "-c", load.format(str(DATA / "checkpoint" / "speedrun"))]
    error = subprocess.run(command, capture_output=True, text=True, timeout=120).stderr
    message = "kind of model is SpeedrunGPT; expected one of: none yet; import the module that defines it"
    assert message in error


def test_the_first_to_register_a_kind_stays():
    other = checkpoint_kind("GPT", NanoGPTConfig)(NanoGPT)
    assert other is NanoGPT and CHECKPOINT_KINDS["GPT"] == (GPTConfig, GPT)


def swap_weights(saved: Path, weights: bytes) -> None:
    """Put other weights in place, and their right hash."""
    saved.with_suffix(".safetensors").write_bytes(weights)
    change_card(saved, sha256=hashlib.sha256(weights).hexdigest())


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (safetensors.torch.save(make(n_embd=16).state_dict()), "size mismatch"),
        (safetensors.torch.save(make(n_layer=2).state_dict()), "Unexpected key"),
        (safetensors.torch.save({"transformer.wte.weight": torch.zeros(3)}), "Missing key"),
        (b"no tensors at all", "header too large"),
    ],
)
def test_weights_of_another_model(saved, weights, message):
    swap_weights(saved, weights)
    with pytest.raises(CourseError, match=f"(?s)does not fit the configuration in model.json.*{message}"):
        load_checkpoint(saved)


def test_a_failed_save_leaves_the_old_checkpoint(saved, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(CourseError, match="No space left"):
        save_checkpoint(saved, make(n_embd=16), CharTokenizer(LETTERS), {"val": 1.0})
    assert load_checkpoint(saved)[2]["val"] == 1.5
    assert sorted(path.name for path in saved.parent.iterdir()) == ["model.json", "model.safetensors"]


# ---------------------------------------------------------------- a run that is interrupted


runs = Suite(long_run)


class Unplugged(Exception):
    pass


def start(folder: Path, library=long_run, cut_at: int | None = None, **changes):
    """A run of a tiny model that saves its state at each step; with `cut_at`, the plug is pulled there."""
    facts = {"command": "pytest", "seed": 1337}
    settings = {"model": make(), "config": CONFIG, "facts": facts, "save_seconds": 0, **changes}

    class Cut(library.LongRun):
        def between_steps(self, step):
            if step == cut_at:
                raise Unplugged
            super().between_steps(step)

    return Cut(tokenizer=CharTokenizer(LETTERS), folder=folder, **settings)


def interrupted(folder: Path, library=long_run, cut_at: int = 7):
    with pytest.raises(Unplugged):
        start(folder, library, cut_at).train(SPLITS)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


@runs.holds
def resumed_like_whole(library, tmp_path):
    whole = start(tmp_path / "whole", library)
    whole.train(SPLITS)
    interrupted(tmp_path / "cut", library)
    resumed = start(tmp_path / "cut", library)
    torch.manual_seed(99)  # another process, another state of the generator
    resumed.train(SPLITS)
    assert resumed.first_step == 6 and resumed.history == whole.history
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_a_fresh_run_has_spent_no_time_and_saves_every_five_minutes(tmp_path):
    run = long_run.LongRun(make(), CharTokenizer(LETTERS), CONFIG, tmp_path, {})
    assert (run.seconds, run.first_step, run.save_seconds) == (0, 0, 300)


def test_a_fingerprint_has_twelve_digits_and_tells_texts_and_vocabularies_apart():
    tokenizer, other = CharTokenizer(LETTERS), CharTokenizer(LETTERS + "?!")
    splits = {"train": torch.arange(5), "val": torch.arange(3)}
    found = [
        long_run.fingerprint(splits, tokenizer),
        long_run.fingerprint(splits, other),
        long_run.fingerprint({**splits, "val": torch.arange(4)}, tokenizer),
    ]
    assert len(set(found)) == 3 and all(re.fullmatch("[0-9a-f]{12}", one) for one in found)


@runs.holds
def best_model_is_kept(library, tmp_path):
    """The checkpoint has the weights of the lowest estimate, here not the last one."""
    run = start(tmp_path, library)
    best, between_steps = {}, run.between_steps

    def remember(step):
        if run.history.steps[-1] == step and run.history.val[-1] == min(run.history.val):
            best.update({name: tensor.clone() for name, tensor in run.model.state_dict().items()})
        between_steps(step)

    run.between_steps = remember
    history = run.train(SPLITS)
    model, _, card = load_checkpoint(tmp_path / "model")
    assert card["val"] == min(history.val) < history.val[-1]
    assert all(torch.equal(best[name], tensor) for name, tensor in model.state_dict().items())
    assert card["history"] == vars(history) and card["sample"].startswith("\n") and len(card["sample"]) == 501


@runs.holds
def only_the_result_remains(library, tmp_path):
    interrupted(tmp_path, library)
    names = ["state.pt", "unfinished.json", "unfinished.safetensors"]
    assert files_in(tmp_path) == names
    start(tmp_path, library).train(SPLITS)
    assert files_in(tmp_path) == ["model.json", "model.safetensors"]


@runs.holds
def shares_its_folder_with_none(library, tmp_path):
    """A second run is refused while the first trains, which it leaves alone; afterwards it may begin."""
    first, second = start(tmp_path, library), start(tmp_path, library)
    refused, between_steps = [], first.between_steps

    def meanwhile(step):
        with contextlib.suppress(CourseError):
            second.train(SPLITS)
            return
        refused.append(step)
        between_steps(step)

    first.between_steps = meanwhile
    assert first.train(SPLITS) and len(refused) == CONFIG.max_iters
    assert second.train(SPLITS).steps == first.history.steps


@runs.holds
def time_adds_up(library, tmp_path):
    interrupted(tmp_path, library)
    state = torch.load(tmp_path / "state.pt")
    assert 0 < state["seconds"] < 60
    torch.save(state | {"seconds": 1000.0}, tmp_path / "state.pt")
    start(tmp_path, library).train(SPLITS)
    assert 1000 <= load_checkpoint(tmp_path / "model")[2]["seconds"] < 1060


runs.faults = [
    ("optimizer forgotten", 'self.optimizer.load_state_dict(state["optimizer"])', "pass", resumed_like_whole),
    ("random state forgotten", 'restore_random_states(state["random"])', "pass", resumed_like_whole),
    ("weights forgotten", 'self.model.load_state_dict(state["model"])', "pass", resumed_like_whole),
    ("one step too early", '"step": step,', '"step": step - 1,', resumed_like_whole),
    ("last model kept", "history.steps[-1] == step and history.val[-1] == min(history.val)",
     "history.steps[-1] == step", best_model_is_kept),
    ("never the best", "history.val[-1] == min(history.val)", "history.val[-1] == max(history.val)",
     best_model_is_kept),
    ("state left behind", "(self.state_file, *", "(self.state_file.parent / 'x', *", only_the_result_remains),
    ("the folder is anybody's", "with self.folder_of_its_own():", "if True:",
     raises(FileNotFoundError, shares_its_folder_with_none)),
    ("saved by the machine's clock", "self.seconds + self.saved - self.began", "self.saved", time_adds_up),
    ("clock starts anew", 'state["seconds"], state["step"]', '0.0, state["step"]', time_adds_up),
]  # fmt: skip

test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(runs)


def test_the_state_of_a_run_with_other_settings_is_refused_and_stays(tmp_path):
    interrupted(tmp_path)
    other = start(tmp_path, config=TrainConfig(4, 6, 12, 4, 2, 0.02))
    with pytest.raises(CourseError, match=r"other settings: .*'learning_rate': 0.1.*'learning_rate': 0.02"):
        other.train(SPLITS)
    assert (tmp_path / "state.pt").exists()


@pytest.mark.parametrize("other", ["ids", "characters"])
def test_a_run_does_not_go_on_with_another_text(tmp_path, other):
    """Not even one with as many characters, of which as many are different."""
    interrupted(tmp_path)
    run, splits = start(tmp_path), SPLITS
    if other == "ids":
        splits = SPLITS | {"train": SPLITS["train"].flip(0)}
    else:
        run.tokenizer = CharTokenizer(LETTERS.replace("a", "z"))
    before = (tmp_path / "state.pt").read_bytes()
    with pytest.raises(CourseError, match=r"other settings: .*'text': "):
        run.train(splits)
    assert (tmp_path / "state.pt").read_bytes() == before


def test_an_old_result_stays_until_the_new_one_is_complete(tmp_path):
    start(tmp_path).train(SPLITS)
    old = (tmp_path / "model.json").read_text()
    interrupted(tmp_path)
    assert (tmp_path / "model.json").read_text() == old


def test_a_short_run_saves_no_state(tmp_path):
    with pytest.raises(Unplugged):
        start(tmp_path, cut_at=7, save_seconds=300).train(SPLITS)
    assert not (tmp_path / "state.pt").exists()


def test_timing_a_step_leaves_model_and_generator_alone(capsys):
    model = make()
    before, state = [p.clone() for p in model.parameters()], torch.get_rng_state()
    assert 0 < long_run.seconds_per_step(model, SPLITS, CONFIG) < 10
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert capsys.readouterr().out == ""


# ---------------------------------------------------------------- lecture sample


def sample(capsys, checkpoint: Path, *words: str) -> tuple[int, str, str]:
    status = cli.main(["sample", "--checkpoint", str(checkpoint), *words])
    return status, *capsys.readouterr()


def test_sample_continues_the_prompt_and_follows_the_seed(saved, capsys):
    texts = [sample(capsys, saved, "--prompt", "abc", "--length", "40", "--seed", seed)[1] for seed in "112"]
    assert texts[0].startswith("abc") and len(texts[0]) == 3 + 40 + 1
    assert texts[0] == texts[1] != texts[2]


def test_top_k_one_and_low_temperature_leave_no_choice(saved, capsys):
    greedy = [sample(capsys, saved, "--length", "30", "--top-k", "1", "--seed", seed)[1] for seed in "12"]
    cold = sample(capsys, saved, "--length", "30", "--temperature", "1e-6")[1]
    assert greedy[0] == greedy[1] == cold


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--temperature", "0"], "temperature is 0.0; expected a positive number"),
        (["--temperature", "-1"], "temperature is -1.0; expected a positive number"),
        (["--top-k", "12"], "top_k is 12; expected 1 to 11"),
        (["--top-k", "0"], "top_k is 0; expected 1 to 11"),
        (["--prompt", "xyz"], "unknown character 'x' at position 0; known are"),
        (["--prompt", ""], "expected at least one to continue"),
        (["--length", "-1"], "max_new_tokens is -1; expected 0 or more"),
    ],
)
def test_sample_refuses(saved, capsys, words, message):
    status, out, err = sample(capsys, saved, *words)
    assert status == 1 and out == "" and message in err and "Traceback" not in err


def test_sample_without_a_checkpoint(tmp_path, capsys):
    status, _, err = sample(capsys, tmp_path / "none")
    assert status == 1 and "cannot read" in err and "none.json" in err


# ---------------------------------------------------------------- the model that comes with the course


def test_the_small_model_is_small_and_as_good_as_its_card_says():
    corpus, splits = load_splits()
    model, tokenizer, card = load_checkpoint(SHIPPED["small"])
    assert SHIPPED["small"].with_suffix(".safetensors").stat().st_size < 5e6
    assert tokenizer.chars == corpus.chars
    torch.manual_seed(1337)
    config = TrainConfig(**{**card["training"], "eval_iters": 40})
    assert abs(estimate_loss(model, {"val": splits["val"]}, config)["val"] - card["val"]) < 0.03


def test_the_full_size_model_is_the_one_of_its_record():
    """Chapter 13c asserts that it has the record's loss on the whole validation split: half a minute."""
    record = read_json(DATA / "recorded" / "full.json")
    model, _, card = load_checkpoint(SHIPPED["full"])
    assert round(record["losses"]["blocks"], 2) <= 1.48
    assert sum(p.numel() for p in model.parameters()) == record["parameters"]
    assert card["commit"] == record["commit"] and card["training"] == record["training"]
    assert record["val"] == min(record["history"]["val"])
