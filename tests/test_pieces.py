"""Pieces of words as tokens: learned, stored, read again, and refused."""

import itertools
import re
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lecture_lib.base import pieces
from lecture_lib.base.errors import CourseError
from lecture_lib.base.pieces import PATTERN, PieceTokenizer, learn_pieces
from lecture_lib.checkpoint import load_checkpoint, save_checkpoint
from lecture_lib.course.cli import main
from lecture_lib.nanogpt import NanoGPT
from lecture_lib.own_text import UNKNOWN, family_config, own_splits, piece_splits

TEXT = "the other mother bothers the brother; они их матери 你好\n" * 40
ALPHABET = sorted({*TEXT, UNKNOWN})


@pytest.fixture(scope="module")
def tokenizer():
    return learn_pieces(TEXT, ALPHABET, 40)


def test_pieces_are_the_single_characters_and_what_is_frequent(tokenizer):
    found = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
    assert found[: len(ALPHABET)] == ALPHABET == tokenizer.chars and tokenizer.vocab_size == 40
    assert "other" in found and not any("; " in piece for piece in found)  # none reaches across


def test_the_pieces_are_those_of_chapter_01b():
    """By hand, as 01b does it: the most frequent pair, over and over, ties to the smaller ids."""
    words = Counter(tuple(ALPHABET.index(c) for c in word) for word in re.findall(PATTERN, TEXT))
    strings = list(ALPHABET)
    while len(strings) < 40:
        pairs = Counter()
        for word, times in words.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += times
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merged = Counter()
        for word, times in words.items():
            out, i = [], 0
            while i < len(word):
                both = word[i : i + 2] == best
                out.append(len(strings) if both else word[i])
                i += 1 + both
            merged[tuple(out)] += times
        words = merged
        strings.append(strings[best[0]] + strings[best[1]])
    tokenizer = learn_pieces(TEXT, ALPHABET, 40)
    assert [tokenizer.decode([i]) for i in range(40)] == strings


@settings(deadline=None)
@given(st.text(ALPHABET, max_size=60))
def test_a_text_of_known_characters_comes_back(text):
    tokenizer = learn_pieces(TEXT, ALPHABET, 40)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text and tokenizer.decode(torch.tensor(ids)) == text
    assert PieceTokenizer(tokenizer.stored).encode(text) == ids


def test_the_ids_take_the_smallest_type_and_chunks_lose_nothing(tokenizer, monkeypatch):
    monkeypatch.setattr(pieces, "CHUNK", 7)
    ids = tokenizer.ids(TEXT)
    assert ids.dtype == np.uint8 and ids.tolist() == tokenizer.encode(TEXT)
    assert tokenizer.decode(ids) == TEXT
    chinese = [chr(0x4E00 + i) for i in range(300)]
    assert learn_pieces("".join(chinese) * 3, chinese, 301).ids("".join(chinese)).dtype == np.uint16


def test_an_unknown_character_and_an_unknown_id_are_refused_by_name(tokenizer):
    with pytest.raises(ValueError, match="unknown character 'Q' at position 4"):
        tokenizer.encode("the Q")
    with pytest.raises(ValueError, match="unknown id 40 at position 1; expected 0 to 39"):
        tokenizer.decode([0, 40])


@pytest.mark.parametrize("size", [-1, 0, len(ALPHABET), 2**16 + 1])
def test_a_size_that_leaves_no_room_is_refused(size):
    with pytest.raises(
        CourseError, match=f"{len(ALPHABET)} single characters of this text and at most 65,536"
    ):
        learn_pieces(TEXT, ALPHABET, size)


def test_a_text_with_few_pairs_gets_fewer_pieces():
    assert learn_pieces("ab\n" * 50, ["\n", "a", "b"], 4000).vocab_size == 4


@pytest.mark.parametrize("stored", ["", "{}", "[1, 2]", '{"model": {"type": "BPE"}}'])
def test_what_is_no_tokenizer_is_refused(stored):
    with pytest.raises(ValueError, match="not the pieces of a tokenizer"):
        PieceTokenizer(stored)


def test_splits_in_pieces_hold_the_text_with_rare_characters_as_one():
    text = TEXT + "☃" + TEXT
    tokenizer, splits, rare = piece_splits(text, 40)
    characters, by_character, same = own_splits(text)
    assert rare == same == {"☃": 1}
    for name, ids in splits.items():
        assert tokenizer.decode(ids[:]) == characters.decode(by_character[name][:])
        assert ids[:].dtype == torch.int64 and len(ids) < len(by_character[name])


# ---------------------------------------------------------------- checkpoints and commands


def test_a_checkpoint_carries_its_pieces(tmp_path, tokenizer):
    model = NanoGPT(family_config("tiny", 40))
    save_checkpoint(tmp_path / "model", model, tokenizer, {"pieces": tokenizer.stored})
    _, loaded, _ = load_checkpoint(tmp_path / "model")
    assert isinstance(loaded, PieceTokenizer) and loaded.encode(TEXT) == tokenizer.encode(TEXT)
    card = (tmp_path / "model.json").read_text(encoding="utf-8")
    (tmp_path / "model.json").write_text(card.replace('"pieces": "{', '"pieces": "', 1), encoding="utf-8")
    with pytest.raises(CourseError, match="not the JSON of a checkpoint"):
        load_checkpoint(tmp_path / "model")


def test_the_command_trains_on_pieces_and_sample_writes_as_many_characters(tmp_path, capsys):
    path, out = tmp_path / "text.txt", tmp_path / "out"
    path.write_text(TEXT, encoding="utf-8")
    command = ["train", "--text", str(path), "--minutes", "0.05", "--out", str(out), "--pieces", "40"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "a vocabulary of 40 pieces of words" in said and "bits per character" in said
    _, tokenizer, card = load_checkpoint(out / "model")
    assert card["command"].endswith("--pieces 40") and tokenizer.vocab_size == 40
    for length in (0, 1, 41):
        prompt = ["--prompt", "the mother", "--length", str(length)]
        assert main(["sample", "--checkpoint", str(out / "model"), *prompt]) == 0
        assert len(capsys.readouterr().out) == len("the mother") + length + 1


def test_too_few_pieces_are_refused_before_anything_trains(tmp_path, capsys):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    assert main(["train", "--text", str(path), "--out", str(tmp_path / "out"), "--pieces", "20"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("lecture: a vocabulary of 20 pieces; expected more than the")
    assert not (tmp_path / "out").exists()
