"""A text of one's own, chapter 17: how it is read, encoded and learned from, and what is refused."""

import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from kit import draw_ids

from lecture_lib.base import reading
from lecture_lib.base.errors import CourseError
from lecture_lib.base.paths import ROOT
from lecture_lib.base.reading import read_text
from lecture_lib.checkpoint import load_checkpoint
from lecture_lib.course.cli import main, parameters
from lecture_lib.evaluation import split_loss
from lecture_lib.nanogpt import NanoGPT
from lecture_lib.own_text import (
    FAMILY,
    STEP_TOKENS,
    UNKNOWN,
    CompactText,
    baseline_losses,
    bits,
    compact,
    describe_text,
    family_config,
    fits,
    largest_fit,
    own_splits,
    own_tokenizer,
    own_training,
    parameters_of,
    plan_run,
    planned_steps,
    stale,
    train_best,
)
from lecture_lib.tokenization import CharTokenizer

POEM = "Ein kühler Wind, er weht so lind, 你好 🙂\n" * 60


@pytest.fixture
def file(tmp_path):
    """A function that writes bytes, or a text as UTF-8, to a file."""

    def write(content: bytes | str) -> Path:
        path = tmp_path / "my text.txt"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"a\r\nb\rc\n", "a\nb\nc\n"),
        (b"\xef\xbb\xbfa\n", "a\n"),
        (b"no end", "no end\n"),
        ("שלום 你好 🙂\n".encode(), "שלום 你好 🙂\n"),
    ],
)
def test_what_is_meant_beyond_doubt_is_read(file, content, text):
    assert read_text(file(content), least=1) == text


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "has 0 characters; expected at least 1,000"),
        (b"too short", "has 9 characters; expected at least 1,000"),
        ("caf\u00e9\n".encode("latin-1") * 500, "isn't UTF-8: byte 0xe9 in line 1; if it's Latin-1"),
        (b"plain\n" * 500 + b"caf\xe9", "isn't UTF-8: byte 0xe9 in line 501"),
        ("text\n".encode("utf-16") * 500, "is UTF-16, expected UTF-8"),
        ("text\n".encode("utf-32") * 500, "is UTF-32, expected UTF-8"),
        (b"\x7fELF" + bytes(2000), "is no text: there is a byte 0 at 4"),
    ],
)
def test_what_is_no_utf_8_text_is_refused(file, content, sentence):
    with pytest.raises(CourseError) as refused:
        read_text(file(content))
    assert sentence in str(refused.value) and "my text.txt" in str(refused.value)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("missing.txt", "can't be read: No such file"),
        (".", "is a folder"),
        ("/dev/null", "is a device or a pipe"),
        ("a\0b", "is no name of a file"),
        ("x" * 5000, "can't be read: File name too long"),
    ],
)
def test_what_is_no_file_is_refused(tmp_path, monkeypatch, path, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CourseError, match=sentence):
        read_text(Path(path))


def test_a_file_without_permission_is_refused(file, monkeypatch):
    path = file(POEM)
    path.chmod(0)
    if os.geteuid() == 0:  # whom no file refuses: the system's answer to others

        def refuse(*_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CourseError, match="can't be read: Permission denied"):
        read_text(path)


@pytest.mark.parametrize("most", range(2000, 2005))
def test_of_a_large_file_the_beginning_is_read_and_a_character_may_be_cut(file, monkeypatch, most):
    monkeypatch.setattr(reading, "MOST_BYTES", most)
    text = read_text(file(POEM))
    assert POEM.startswith(text.removesuffix("\n")) and most - 4 < len(text.encode()) <= most + 1


# ---------------------------------------------------------------- vocabulary and ids


def test_rare_characters_share_one_entry_and_are_named():
    tokenizer, rare = own_tokenizer("aaabbbcc\n")
    assert tokenizer.chars == ["\n", "a", "b", UNKNOWN] and rare == {"c": 2}
    said = describe_text(Path("x.txt"), "aaabbbcc\n", tokenizer, rare)
    assert "'c' (2)" in said and "vocabulary of 4" in said
    many = {chr(i): 1 for i in range(0x4E00, 0x4E00 + 30)}
    assert "and 20 more" in describe_text(Path("x.txt"), "", tokenizer, many)


def test_a_text_that_has_the_sign_for_unknown_keeps_it():
    tokenizer, rare = own_tokenizer(f"aaa{UNKNOWN}\n")
    assert tokenizer.chars.count(UNKNOWN) == 1 and UNKNOWN not in rare


@pytest.mark.parametrize(("kinds", "width"), [(5, 1), (254, 1), (255, 2), (3000, 2), (70_000, 4)])
def test_ids_take_as_few_bytes_as_hold_them_and_come_out_as_int64(kinds, width):
    alphabet = [chr(0x10000 + i) for i in range(kinds)]
    tokenizer = CharTokenizer("".join(alphabet) + "\n" + UNKNOWN)
    text = "".join(alphabet) * (2 + 2**20 // kinds)  # longer than what is translated at a time
    ids = compact(text, tokenizer)
    assert ids.ids.element_size() == width and len(ids) == len(text)
    places = draw_ids(4, 3, vocab_size=len(ids))
    assert ids[places].dtype == torch.int64 and ids[places].shape == (4, 3)
    assert tokenizer.decode(ids[-kinds:]) == "".join(alphabet)


def test_an_unknown_character_becomes_the_sign_for_it():
    tokenizer = CharTokenizer("ab\n" + UNKNOWN)
    assert tokenizer.decode(compact("aéb🙂\n", tokenizer)[:]) == f"a{UNKNOWN}b{UNKNOWN}\n"


def test_the_vocabulary_knows_the_training_split_alone():
    tokenizer, splits, _ = own_splits("ab" * 450 + "xyz" * 34)
    assert set(tokenizer.chars) <= set("abxyz\n" + UNKNOWN) and len(splits["val"]) == 101
    assert "z" not in own_splits("ab" * 900 + "z" * 200)[0].chars


# ---------------------------------------------------------------- baselines


def test_baselines_are_the_counted_frequencies():
    text = "abab" * 200 + "ba" * 50
    tokenizer, splits, _ = own_splits(text)
    V, train, val = tokenizer.vocab_size, text[:810], text[810:]
    losses = baseline_losses(splits, V)
    counts = Counter(train)
    expected = -sum(math.log((counts[c] + 1) / (810 + V)) for c in val[1:]) / (len(val) - 1)
    assert losses["nothing"] == math.log(V)
    assert losses["frequencies"] == pytest.approx(expected)
    assert losses["pairs"] < 0.1 < losses["frequencies"]  # the next letter is nearly certain
    assert bits(math.log(2)) == 1


# ---------------------------------------------------------------- sizes, steps, plan


def test_the_rule_by_text_and_by_time():
    assert fits(100, 100, 1000) and not fits(101, 100, 10_000) and not fits(100, 1000, 999)
    assert largest_fit(65, 10, 10) == "tiny" and largest_fit(65, 10**12, 10**12) == "lecture"
    sizes = [parameters_of(family_config(size, 65)) for size in FAMILY]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("size", FAMILY)
def test_parameters_are_counted_right_and_a_step_reads_as_many_tokens(size):
    config, training = family_config(size, 71), own_training(family_config(size, 71), 1000)
    with torch.device("meta"):
        assert parameters_of(config) == sum(p.numel() for p in NanoGPT(config).parameters())
    assert training.batch_size * training.block_size == STEP_TOKENS


def test_the_family_has_the_sizes_that_the_chapter_names():
    sizes = [parameters_of(family_config(size, 65)) for size in FAMILY]
    assert sizes == [29_985, 209_665, 820_673, 4_820_801, 10_770_113]


def test_a_run_of_few_steps_has_an_estimate_at_each():
    training = own_training(family_config("tiny", 10), 19)
    assert (training.eval_interval, training.eval_iters, training.learning_rate) == (1, 10, 0.2 / 32)


def test_baselines_count_singles_and_pairs_and_one_more_of_each():
    ids = {"train": [0, 1, 0, 1, 1], "val": [0, 1, 1, 0]}
    splits = {name: CompactText(torch.tensor(some)) for name, some in ids.items()}
    losses = baseline_losses(splits, 2)
    singles = (3 + 1) / (5 + 2), (3 + 1) / (5 + 2), (2 + 1) / (5 + 2)  # 1, 1, and 0
    pairs = (2 + 1) / (2 + 2), (1 + 1) / (2 + 2), (1 + 1) / (2 + 2)  # 0 1, 1 1, and 1 0
    assert losses["nothing"] == pytest.approx(math.log(2))
    assert losses["frequencies"] == pytest.approx(-sum(map(math.log, singles)) / 3)
    assert losses["pairs"] == pytest.approx(-sum(map(math.log, pairs)) / 3)


def test_steps_are_limited_by_time_and_by_the_text():
    assert planned_steps(10**9, seconds=1000, pace=0.1) == 7943  # which leaves room for estimates
    assert planned_steps(10**9, seconds=100, pace=0.1) == 710
    assert planned_steps(10_240, seconds=1e9, pace=0.1) == 500  # fifty times
    assert planned_steps(10**9, seconds=-1, pace=0.1) == 20


def test_a_plan_takes_the_largest_size_that_text_and_time_allow():
    _, short, _ = own_splits(POEM)
    config, training = plan_run(short, 40, seconds=1)
    assert config.n_embd == FAMILY["tiny"]["n_embd"] and training.max_iters >= 20


# ---------------------------------------------------------------- training


def tiny(V: int = 12) -> NanoGPT:
    torch.manual_seed(1)
    return NanoGPT(family_config("tiny", V))


def noise(n: int = 2000) -> dict[str, CompactText]:
    ids = draw_ids(n, vocab_size=12).to(torch.uint8)
    return {"train": CompactText(ids[:200]), "val": CompactText(ids[200:])}


def test_the_best_weights_stay_and_patience_ends_the_run(capsys):
    config, kept = own_training(family_config("tiny", 12), 200), []
    model = tiny()
    history = train_best(model, noise(), config, patience=3, keep=lambda h: kept.append(min(h.val)))
    assert history.steps[-1] < 199 and stale(history.val) == 3  # noise is learned by heart: val rises
    assert kept == sorted(kept, reverse=True) and kept[-1] == min(history.val)
    assert split_loss(model, noise()["val"][:]) < min(history.val) + 0.05 < history.val[-1]


def test_a_deadline_in_the_past_leaves_one_estimate():
    history = train_best(tiny(), noise(), own_training(family_config("tiny", 12), 200), deadline=0)
    assert history.steps == [0]


def test_ctrl_c_keeps_the_best_so_far(capsys):
    def interrupt(history):
        if len(history.steps) == 3:
            raise KeyboardInterrupt

    model = tiny()
    text = {name: CompactText(torch.arange(600, dtype=torch.uint8) % 12) for name in ("train", "val")}
    history = train_best(model, text, own_training(family_config("tiny", 12), 100), keep=interrupt)
    assert len(history.steps) == 3 and "interrupted" in capsys.readouterr().out
    xb = (torch.arange(32) % 12)[None]
    assert model(xb, (xb + 1) % 12)[1].item() == pytest.approx(min(history.val), abs=0.3)


def test_ctrl_c_before_the_first_estimate_is_passed_on(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lecture_lib.own_text.training_steps", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_best(tiny(), noise(), own_training(family_config("tiny", 12), 100))


# ---------------------------------------------------------------- the command


def test_the_command_trains_tells_and_leaves_a_model_that_can_be_sampled(file, tmp_path, capsys):
    path, out = file(POEM), tmp_path / "model of mine"
    assert main(["train", "--text", str(path), "--minutes", "0.05", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    for part in (
        "2,340 characters",
        "parameters",
        "bits per character",
        "models that know: nothing",
        "lecture sample",
    ):
        assert part in said, part
    assert sorted(p.name for p in out.iterdir() if p.name[0] != ".") == ["model.json", "model.safetensors"]
    _, _, card = load_checkpoint(out / "model")
    assert card["text"] == "my text.txt" and card["val"] == min(card["history"]["val"])
    assert main(["sample", "--checkpoint", str(out / "model"), "--length", "5", "--prompt", "你好"]) == 0
    assert capsys.readouterr().out.startswith("你好")


@pytest.mark.parametrize("content", [b"", b"short", b"\x00" * 3000, "é".encode("latin-1") * 2000])
def test_the_command_refuses_in_one_line(file, tmp_path, capsys, content):
    assert main(["train", "--text", str(file(content)), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("lecture: ") and said.err.count("\n") == 1 and not said.out
    assert not (tmp_path / "out").exists()


def test_a_path_for_a_chapter_is_seen_from_where_the_command_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = parameters(["corpus=my.txt", "seed=1"])
    assert given == {"corpus": str(tmp_path / "my.txt"), "seed": "1"}
    assert parameters(["corpus="]) == {"corpus": ""}


@pytest.mark.parametrize("option", [["--minutes", "0"], ["--minutes", "nan"], ["--seed", "-1"]])
def test_options_out_of_range_are_refused(file, option):
    with pytest.raises(SystemExit):
        main(["train", "--text", str(file(POEM)), *option])


def test_an_interrupted_command_leaves_the_best_model(file, tmp_path):
    path, out = file(POEM * 20), tmp_path / "out"
    command = [sys.executable, "-m", "lecture_lib.course.cli", "train", "--text", path, "--out", out]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if (out / "unfinished.json").exists():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)  # like Ctrl-C to `lecture`, which a suite in the background ignores
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "interrupted; the best model so far is kept" in said, errors
    assert load_checkpoint(out / "model")[2]["text"] == path.name and "Traceback" not in errors


def test_the_memory_for_200_megabytes_is_bounded(tmp_path):
    path = tmp_path / "large.txt"
    line = "a line of text with an é and 中\n".encode()
    with path.open("wb") as file:
        for _ in range(200):
            file.write(line * (1_000_000 // len(line)))
    code = (
        "import resource\n"
        "from pathlib import Path\n"
        "from lecture_lib.base.reading import read_text\n"
        "from lecture_lib.own_text import own_splits, baseline_losses\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"tokenizer, splits, _ = own_splits(read_text(Path({str(path)!r})))\n"
        "baseline_losses(splits, tokenizer.vocab_size)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, len(splits['train']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    kilobytes, characters = map(int, done.stdout.split())
    assert characters > 25_000_000
    assert kilobytes * (1 if sys.platform == "darwin" else 1024) < 700e6, kilobytes
