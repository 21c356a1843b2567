"""Checks of the exercises of 01b_subwords."""

import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

from lecture_lib.base.corpus import load_corpus

from .asking import Wrong, ask, expect
from .checking import exercise

Word = tuple[int, ...]


@exercise("01b.1", Callable, "a function of a loss, a number of tokens and a number of characters")
def per_character(answer: Callable) -> str:
    for loss, tokens, characters in ((4.0, 100, 250), (2.5, 80, 80), (6.0, 10, 45)):
        slips = {
            "That's upside down: fewer tokens than characters make the loss of a character smaller.": (
                loss * characters / tokens
            ),
            "That's the loss of the whole text; divide it by its characters.": loss * tokens,
        }
        if tokens != characters:
            slips["A loss per token isn't one per character: a token stands for several."] = loss
        what = f"For a loss of {loss} per token, {tokens} tokens, {characters} characters"
        expect(ask(answer, loss, tokens, characters), loss * tokens / characters, what, slips)
    return "So a vocabulary of long tokens has a high loss per token, and may still be the better model."


@exercise(
    "01b.2", Callable, "a function of a string and a vocabulary, {string: id}, that gives a list of ids"
)
def longest_match(answer: Callable) -> str:
    vocabulary = {c: i for i, c in enumerate("abcdehnrt ")} | {
        "th": 10,
        "he": 11,
        "the": 12,
        "ther": 13,
        "ere": 14,
        " th": 15,
    }
    cases = {
        "the": [12],
        "there": [13, 4],
        "athere": [0, 13, 4],
        "hethe": [11, 12],
        " then": [15, 4, 6],
        "": [],
        "eee": [4, 4, 4],
    }
    for string, expected in cases.items():
        result = ask(answer, string, vocabulary)
        if not isinstance(result, list):
            raise Wrong(f"Expected a list of ids, got {type(result).__name__}.")
        if result == expected:
            continue
        names = {i: s for s, i in vocabulary.items()}
        if any(i not in names for i in result) or "".join(names[i] for i in result) != string:
            raise Wrong(f"{string!r}: your ids {result} don't stand for that text.")
        if result == [vocabulary[c] for c in string]:
            raise Wrong(
                f"{string!r}: these are single characters; take the longest entry that fits each time."
            )
        raise Wrong(
            f"{string!r}: expected {expected}, got {result}; {[names[i] for i in expected]} are the longest in turn."
        )
    return (
        "It's quick and needs no order of merges, but cuts elsewhere: BPE would join the most frequent pair first. A "
        "model must read texts cut in the way that it was trained on."
    )


@exercise(
    "01b.3",
    Callable,
    "a function of words, {ids: frequency}, a number of merges and the first new id that gives a list of pairs",
)
def quick_merges(answer: Callable) -> str:
    small = {(0, 0, 0, 0): 2, (0, 0, 1): 3, (2, 1): 3, (1, 2, 1, 2): 1}
    tied = {(3, 1): 2, (1, 3): 2, (2, 2, 2): 2}
    for words, merges in ((small, 4), (tied, 3), (sample_words(300), 30)):
        expected = slow_merges(words, merges, 100)
        found = [tuple(pair) for pair in ask(answer, words, merges, 100)]
        if found == expected:
            continue
        if found == slow_merges(dict.fromkeys(words, 1), merges, 100):
            raise Wrong("A word that occurs often counts as often: multiply its pairs by its frequency.")
        if len(found) != len(expected):
            raise Wrong(f"Expected {merges} merges, got {len(found)}.")
        step = next(i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
        pairs = pair_counts(after_merges(words, expected[:step], 100))
        if pairs[found[step]] == pairs[expected[step]]:
            raise Wrong(
                f"Merge {step}: {found[step]} and {expected[step]} are equally frequent; the smaller pair comes first."
            )
        raise Wrong(
            f"Merge {step}: {found[step]} occurs {pairs[found[step]]} times now, {expected[step]} {pairs[expected[step]]} "
            "times. After a merge the counts of the neighbouring pairs change, too."
        )
    words = sample_words(4000)
    began = time.perf_counter()
    expected = slow_merges(words, 60, 100)
    slow = time.perf_counter() - began
    began = time.perf_counter()
    found = answer(dict(words), 60, 100)
    quick = time.perf_counter() - began
    if [tuple(pair) for pair in found] != expected:
        raise Wrong("For 4,000 words and 60 merges the pairs are others than those of the chapter's way.")
    if quick > slow / 2:
        raise Wrong(
            f"The merges are right, but take {quick / slow:.1f} times as long as counting all pairs anew; expected less than half."
        )
    return "The same merges, at least twice as fast here; the more merges, the more it saves. Real tokenizers train like this."


def sample_words(n: int) -> dict[Word, int]:
    """The n most frequent words of the corpus, as ids."""
    found = Counter(load_corpus()[:400_000].split()).most_common(n)
    return {tuple(ord(c) - 32 for c in word): times for word, times in found}


def pair_counts(words: dict[Word, int]) -> Counter:
    """How often each pair of neighbours occurs."""
    pairs = Counter()
    for word, frequency in words.items():
        for pair in pairwise(word):
            pairs[pair] += frequency
    return pairs


def merged(word: Word, pair: tuple[int, int], new: int) -> Word:
    """The word with `new` for each occurrence of `pair`, from left to right."""
    result: list[int] = []
    for i in word:
        if result and (result[-1], i) == pair:
            result[-1] = new
        else:
            result.append(i)
    return tuple(result)


def after_merges(words: dict[Word, int], pairs: list[tuple[int, int]], first: int) -> dict[Word, int]:
    """The words after these merges."""
    for new, pair in enumerate(pairs, start=first):
        joined = Counter()
        for word, frequency in words.items():
            joined[merged(word, pair, new)] += frequency
        words = joined
    return words


def slow_merges(words: dict[Word, int], merges: int, first: int) -> list[tuple[int, int]]:
    """The chapter's way: all pairs counted anew for each merge; the smallest of the most frequent is taken."""
    found = []
    for new in range(first, first + merges):
        pairs = pair_counts(words)
        if not pairs:
            break
        highest = max(pairs.values())
        found.append(min(pair for pair, times in pairs.items() if times == highest))
        words = after_merges(words, found[-1:], new)
    return found
