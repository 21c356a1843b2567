"""`lecture sample`: text as it is written, by any checkpoint, and the model that a finished run ships."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kit import refusals

from lecture_lib.base.errors import CourseError
from lecture_lib.base.paths import ROOT, SHIPPED
from lecture_lib.checkpoint import load_checkpoint, save_checkpoint
from lecture_lib.course import sampling, shipping
from lecture_lib.course.cli import main
from lecture_lib.gpt import GPT, GPTConfig
from lecture_lib.nanogpt import NanoGPT, NanoGPTConfig
from lecture_lib.tokenization import CharTokenizer, load_splits
from lecture_lib.training import sample_text

LETTERS = CharTokenizer("\nabcdefghij")
SIZES = {"vocab_size": 11, "block_size": 8, "n_embd": 8, "n_head": 2, "n_layer": 1}


@pytest.fixture
def checkpoint(tmp_path):
    """A tiny GPT's checkpoint; it has opinions."""
    torch.manual_seed(1)
    model = GPT(GPTConfig(**SIZES))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 3
    save_checkpoint(tmp_path / "model", model, LETTERS, {"val": 1.5})
    return tmp_path / "model"


def command(checkpoint, *options):
    return main(["sample", "--checkpoint", str(checkpoint), "--prompt", "abc", *options])


def test_characters_come_one_by_one(checkpoint):
    writer = sampling.load_writer(checkpoint)
    characters = list(sampling.stream_text(*writer, "abc", length=30, seed=2))
    assert len(characters) == 30 and set(map(len, characters)) == {1}
    assert "abc" + "".join(characters) == sampling.write_on("abc", checkpoint, length=30, seed=2)


def test_the_exact_way_is_chapter_06s_text_and_the_other_the_same_up_to_the_context(checkpoint):
    expected = sample_text(load_checkpoint(checkpoint)[0], LETTERS, 40, "abc", 3, 0.8, 5)
    how = {"length": 40, "seed": 3, "temperature": 0.8, "top_k": 5}
    assert sampling.write_on("abc", checkpoint, **how, exact=True) == expected
    moved = sampling.write_on("abc", checkpoint, **how)
    assert moved[:9] == expected[:9] and moved != expected and len(moved) == 43


def test_bfloat16_rounds_the_weights(checkpoint):
    model, _ = sampling.load_writer(checkpoint, bfloat16=True)
    assert model.body.blocks[0].sa.qkv.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("name", list(SHIPPED))
def test_each_shipped_model_writes_the_same_again(name):
    text = sampling.write_on("ROMEO:", SHIPPED[name], length=20, seed=1)
    assert text.startswith("ROMEO:") and len(text) == 26
    assert text == sampling.write_on("ROMEO:", SHIPPED[name], length=20, seed=1)


def test_the_command_tells_its_speed_beside_the_text(checkpoint, capsys):
    assert command(checkpoint, "--length", "4") == 0
    out, err = capsys.readouterr()
    assert out == sampling.write_on("abc", checkpoint, length=4) + "\n"
    assert err.startswith("4 characters in ") and "a second" in err and "--exact" not in err


def test_the_command_says_when_the_window_has_moved(checkpoint, capsys):
    for options, said in (([], True), (["--exact"], False)):
        assert command(checkpoint, "--length", "6", *options) == 0
        assert ("longer than the context of 8 tokens" in capsys.readouterr().err) == said


def test_no_characters_are_as_good_as_any_number(checkpoint, capsys):
    assert command(checkpoint, "--length", "0") == 0
    assert capsys.readouterr().out == "abc\n"


def test_what_is_refused_leaves_nothing_on_the_screen(checkpoint, capsys):
    for options, complaint in (
        (["--temperature", "0"], "temperature is 0.0"),
        (["--top-k", "12"], "top_k is 12"),
        (["--length", "-1"], "max_new_tokens is -1"),
        (["--prompt", "a#"], "unknown character '#'"),
        (["--prompt", ""], "idx has rows of 0 tokens"),
    ):
        assert command(checkpoint, *options) == 1
        out, err = capsys.readouterr()
        assert out == "" and complaint in err


def card_with(checkpoint, **changed):
    card = json.loads(checkpoint.with_suffix(".json").read_text())
    checkpoint.with_suffix(".json").write_text(json.dumps(card | changed))


def foreign_weights(checkpoint):
    checkpoint.with_suffix(".safetensors").write_bytes(b"PK" * 50)
    card_with(checkpoint, sha256=hashlib.sha256(b"PK" * 50).hexdigest())


def folder_at(file):
    file.unlink()
    file.mkdir()


def cut(file, size):
    file.write_bytes(file.read_bytes()[:size])


@pytest.mark.parametrize(
    ("suffix", "damage", "complaint"),
    [
        (".json", lambda file: file.unlink(), "model.json: No such file"),
        (".safetensors", lambda file: file.unlink(), "model.safetensors: No such file"),
        (".json", lambda file: cut(file, 0), "model.json is not the JSON of a checkpoint"),
        (".json", lambda file: cut(file, 40), "model.json is not the JSON of a checkpoint"),
        (".json", lambda file: file.write_text("[1]"), "model.json is not the JSON of a checkpoint"),
        (".json", lambda file: file.write_bytes(b"\xff"), "model.json is not the JSON of a checkpoint"),
        (".safetensors", lambda file: cut(file, 0), "(0 bytes)"),
        (".safetensors", lambda file: cut(file, 100), "(100 bytes)"),
        (".json", folder_at, "model.json: Is a directory"),
        (".safetensors", folder_at, "model.safetensors: Is a directory"),
        ("", foreign_weights, "does not fit the configuration in model.json"),
        ("", lambda path: card_with(path, model=SIZES | {"n_embd": 16}), "size mismatch"),
        ("", lambda path: card_with(path, model=SIZES | {"n_embd": 10**15}), "model: "),
        ("", lambda path: card_with(path, model=SIZES | {"n_head": 3}), "n_head"),
        ("", lambda path: card_with(path, kind="Llama"), "the kind of model is Llama"),
        ("", lambda path: card_with(path, characters="abc"), "a vocabulary of 3, its model 11"),
    ],
)
def test_a_damaged_checkpoint_is_refused_in_one_line(checkpoint, capsys, suffix, damage, complaint):
    damage(checkpoint.with_suffix(suffix))
    assert command(checkpoint) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("lecture: ") and err.count("\n") == 1 and complaint in err


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("", "is a folder"),
        ("..", "is a folder"),
        ("/", "is a folder"),
        ("a\0b", "null"),
        ("x" * 300, "too long"),
    ],
)
def test_a_path_of_no_checkpoint_is_refused_in_one_line(capsys, path, complaint):
    assert command(path) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("lecture: ") and err.count("\n") == 1 and complaint in err


def test_a_checkpoint_without_permission_is_refused_in_one_line(checkpoint, capsys, monkeypatch):
    def forbidden(path):  # since root may read what it likes
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    assert command(checkpoint) == 1
    assert capsys.readouterr().err.endswith("model.safetensors: Permission denied\n")


def test_a_reader_may_leave(checkpoint):
    """As `lecture sample | head -c 5` does: no trace, and the text ends there."""
    words = [sys.executable, "-m", "lecture_lib.course.cli", "sample", "--checkpoint", checkpoint]
    writer = subprocess.Popen(
        [*words, "--prompt", "abc", "--length", "200000"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert writer.stdout.read(5).startswith(b"abc")
    writer.stdout.close()
    assert writer.wait(timeout=60) == 1 and writer.stderr.read() == b""


# ---------------------------------------------------------------- shipping


@pytest.fixture
def finished(tmp_path):
    """What a run with a tiny model of the corpus's characters leaves in its folder."""
    tokenizer, _ = load_splits()
    torch.manual_seed(1)
    model = NanoGPT(NanoGPTConfig(**SIZES | {"vocab_size": 65}))
    facts = {"command": "python -m x", "seed": 1, "val": 4.2, "history": {"steps": [0]}, "sample": "..."}
    save_checkpoint(tmp_path / "run" / "model", model, tokenizer, facts)
    return tmp_path / "run"


@pytest.fixture
def quick(monkeypatch):
    """With a validation split of 2,000 characters."""
    tokenizer, splits = load_splits()
    few = {"train": splits["train"], "val": splits["val"][:2000]}
    monkeypatch.setattr(shipping, "load_splits", lambda: (tokenizer, few))


def test_a_finished_run_becomes_a_checkpoint_of_half_the_bytes_and_a_record(finished, quick, tmp_path):
    record = json.loads(shipping.ship(finished, "tiny", "abc123", data=tmp_path / "data").read_text())
    shipped = tmp_path / "data" / "checkpoint" / "tiny"
    before, after = (
        path.with_suffix(".safetensors").stat().st_size for path in (finished / "model", shipped)
    )
    assert after < 0.7 * before
    card = load_checkpoint(shipped)[2]
    assert card["commit"] == record["commit"] == "abc123" and card["command"] == "python -m x"
    assert "history" not in card and record["history"] == {"steps": [0]}
    assert record["model"]["n_embd"] == 8 and record["parameters"] == 1472
    assert list(record["samples"]) == ["1337", "1", "2"] and len(record["samples"]["1"]) == 501
    assert abs(record["losses"]["blocks"] - 4.17) < 0.1 and abs(record["losses"]["crops"] - 4.17) < 0.1


def test_weights_that_do_not_bear_rounding_are_refused(finished, quick, tmp_path):
    shipping.ship(finished, "tiny", "abc123", data=tmp_path)
    with pytest.raises(CourseError, match=r"with rounded weights; expected 9\.0000"):
        shipping.check_rounding(tmp_path / "checkpoint" / "tiny", 9.0)


test_unreadable_checkpoints_are_refused = refusals(
    (CourseError, "cannot read", lambda: sampling.load_writer(ROOT / "nothing")),
    (CourseError, "cannot read", lambda: shipping.ship(ROOT / "nothing", "x", "abc")),
    (
        CourseError,
        "bfloat16 is for a GPT or NanoGPT; this is a SpeedrunGPT",
        lambda: sampling.load_writer(SHIPPED["speedrun"], bfloat16=True),
    ),
)
