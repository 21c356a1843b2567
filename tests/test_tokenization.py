"""Chapter 01: the character tokenizer and the split, for any text, and every mistake they name."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from kit import refusals

from lecture_lib.course.chapters import find_chapter
from lecture_lib.tokenization import CharTokenizer, split_data

lecture = CharTokenizer("\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
GREETING = [46, 47, 47, 1, 58, 46, 43, 56, 43]  # "hii there", 9:28

characters = st.characters(exclude_categories=())  # surrogates and unassigned code points too
texts = st.text(characters, min_size=1)


@st.composite
def vocabularies_and_strings(draw):
    vocabulary = draw(texts)
    return vocabulary, draw(st.text(st.sampled_from(vocabulary)))


# --- the tokenizer ---


@given(vocabularies_and_strings())
def test_decode_undoes_encode(drawn):
    vocabulary, string = drawn
    tokenizer = CharTokenizer(vocabulary)
    ids = tokenizer.encode(string)
    assert len(ids) == len(string)
    assert all(type(i) is int and 0 <= i < tokenizer.vocab_size for i in ids)
    assert tokenizer.decode(ids) == string


@given(texts)
def test_the_vocabulary_is_the_sorted_distinct_characters(text):
    tokenizer = CharTokenizer(text)
    assert tokenizer.chars == sorted(set(text))
    assert tokenizer.vocab_size == len(set(text))
    assert tokenizer.encode("".join(tokenizer.chars)) == list(range(tokenizer.vocab_size))
    assert tokenizer.itos == {i: c for c, i in tokenizer.stoi.items()}


@given(texts)
def test_the_characters_alone_make_the_same_tokenizer(text):
    tokenizer = CharTokenizer(text)
    assert vars(CharTokenizer("".join(tokenizer.chars))) == vars(tokenizer)


def test_the_ids_of_the_lecture():
    assert lecture.vocab_size == 65
    assert lecture.encode("hii there") == GREETING
    assert lecture.decode(GREETING) == "hii there"


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_decode_accepts_a_row_of_a_tensor(dtype):
    batch = torch.tensor([GREETING, GREETING[::-1]], dtype=dtype)  # (2, 9)
    assert lecture.decode(batch[0]) == "hii there"
    assert lecture.decode(batch[1]) == "ereht iih"


def test_decode_accepts_an_iterator():
    assert lecture.decode(iter(GREETING)) == "hii there"


def test_nothing_translates_to_nothing():
    tokenizer = CharTokenizer("a")
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == tokenizer.decode(torch.empty(0, dtype=torch.int64)) == ""


@given(vocabularies_and_strings(), characters, st.text(characters))
def test_an_unknown_character_is_named_with_its_first_position(drawn, stranger, rest):
    vocabulary, string = drawn
    assume(stranger not in vocabulary)
    tokenizer = CharTokenizer(vocabulary)
    with pytest.raises(ValueError) as caught:
        tokenizer.encode(string + stranger + rest)
    known = repr("".join(tokenizer.chars))
    assert str(caught.value) == f"unknown character {stranger!r} at position {len(string)}; known are {known}"


@given(vocabularies_and_strings(), st.integers(), st.booleans())
def test_an_unknown_id_is_named_with_its_first_position(drawn, stranger, lazily):
    vocabulary, string = drawn
    tokenizer = CharTokenizer(vocabulary)
    assume(not 0 <= stranger < tokenizer.vocab_size)
    ids = [*tokenizer.encode(string), stranger, 0, stranger]
    with pytest.raises(ValueError) as caught:
        tokenizer.decode(iter(ids) if lazily else ids)
    last = tokenizer.vocab_size - 1
    assert str(caught.value) == f"unknown id {stranger} at position {len(string)}; expected 0 to {last}"


def test_the_cuts_that_chapter_01_draws_are_those_that_01b_finds():
    (drawing,) = [cell for cell in find_chapter("01").notebook.cells if cell.id == "token-boxes"]
    (finding,) = [cell for cell in find_chapter("01b").notebook.cells if cell.id == "cuts"]
    exec(drawing.source.partition("_, axes")[0], drawn := {})
    assert list(drawn["cuts"]) == [65, 256, 1024, 4096]
    for size, cut in drawn["cuts"].items():
        assert f"{size:5,} entries, {len(cut):2} tokens: {'|'.join(cut)}\n" in finding.outputs[0].text


# --- the split ---


@given(st.integers(1, 500), st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_the_two_parts_are_the_whole_cut_once(length, fraction):
    n = int(fraction * length)
    assume(0 < n < length)
    ids = torch.arange(length)  # all different, so that an overlap would show
    splits = split_data(ids, fraction)
    assert list(splits) == ["train", "val"]
    assert splits["train"].tolist() == list(range(n))
    assert splits["val"].tolist() == list(range(n, length))


def test_the_lecture_keeps_its_last_tenth_for_validation():
    splits = split_data(torch.zeros(1_115_394, dtype=torch.int64))
    assert splits["train"].shape == (1_003_854,)
    assert splits["val"].shape == (111_540,)


def test_two_ids_are_enough_for_two_parts():
    assert [part.tolist() for part in split_data(torch.arange(2), 0.5).values()] == [[0], [1]]


def test_the_parts_are_views():
    ids = torch.zeros(10, dtype=torch.int64)
    splits = split_data(ids)
    ids += 1
    assert splits["train"].sum() == 9 and splits["val"].sum() == 1


test_what_is_refused = refusals(
    ("the text is empty; expected at least one character", CharTokenizer, ""),
    *(
        (f"unknown id {i} at position 1; expected 0 to 64", lecture.decode, torch.tensor([0, i]))
        for i in (-1, 65, 10**6)
    ),
    ("the ids have shape (); expected one row", lecture.decode, torch.tensor(1)),
    ("the ids have shape (1, 2); expected one row", lecture.decode, torch.tensor([[1, 2]])),
    *(
        (f"fraction is {share}; expected a number between 0 and 1", split_data, torch.arange(100), share)
        for share in (0, 1, -0.1, 1.1, float("nan"), float("inf"))
    ),
    *(
        (f"{n} ids at fraction {share} leave a split empty", split_data, torch.arange(n), share)
        for n, share in [(0, 0.5), (1, 0.9), (9, 0.1)]
    ),
)
