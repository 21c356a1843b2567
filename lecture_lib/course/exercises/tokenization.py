"""Checks of the exercises of 01_tokenization."""

import heapq
import math
from collections.abc import Callable
from itertools import count

from lecture_lib.base.corpus import load_corpus, play_spans
from lecture_lib.tokenization import load_splits

from .asking import Wrong, ask, expect
from .checking import exercise


@exercise("01.1", set, "a set of characters")
def missing_characters(answer: set) -> str:
    tokenizer, splits = load_splits()
    train, val = (set(tokenizer.decode(splits[name])) for name in ("train", "val"))
    missing = set(tokenizer.chars) - val
    if answer == val:
        raise Wrong("These are the characters that val has; the ones that it lacks are asked for.")
    if answer == train - missing:
        raise Wrong("These are the characters that both splits have.")
    if not answer:
        raise Wrong("Nothing is missing? That's so of the training split: take train - val, not val - train.")
    if answer & val:
        raise Wrong(f"val does have {sorted(answer & val)[0]!r}.")
    if strange := answer - set(tokenizer.chars):
        raise Wrong(f"{sorted(strange, key=str)[0]!r} isn't one of the 65 characters.")
    if answer != missing:
        found = sorted(answer & missing)
        raise Wrong(f"Of the characters that val lacks you have {found}; there are {len(missing)}.")
    return (
        "Four characters are never asked for in val, which does no harm. The other way round, the row of a character "
        "that training never saw would still hold its first random numbers."
    )


@exercise("01.2", type, "a class with encode and decode")
def byte_tokenizer(answer: type) -> str:
    tokenizer = answer()
    cases = {"naïve café": 12, "hii there": 9, "": 0, "我": 3, "\n😀": 5}
    for text, length in cases.items():
        ids = list(ask(tokenizer.encode, text))
        if ids == [ord(c) for c in text] and len(ids) != length:
            raise Wrong(
                f"That's a character's number in Unicode, which goes up to 1,114,111. Bytes come from {text!r}.encode()."
            )
        if len(ids) != length or any(not 0 <= i < 256 for i in ids):
            raise Wrong(f"{text!r}: expected {length} ids from 0 to 255, its bytes in UTF-8; got {ids}.")
        back = ask(tokenizer.decode, ids)
        if back != text:
            raise Wrong(f"decode(encode({text!r})) gives {back!r}; it should give the text back.")
    for ids, why in (
        ([256], "no byte is 256"),
        ([-1], "no byte is negative"),
        ([195], "195 begins a letter of two bytes"),
    ):
        try:
            given = tokenizer.decode(ids)
        except ValueError:  # UnicodeDecodeError is one
            continue
        raise Wrong(f"decode({ids}) gives {given!r}; it should raise ValueError, since {why}.")
    return (
        "256 entries are enough for every text in every language, at the price of longer sequences. But not every "
        "sequence of bytes is a text: a model that writes bytes may break a letter in two."
    )


@exercise("01.3", Callable, "a function of a text and a fraction that gives two texts, train and val")
def cut_between_plays(answer: Callable) -> str:
    text = load_corpus()
    starts = [play.start for play in play_spans(text).values()][1:]
    for fraction in (0.9, 0.5, 0.2, 0.72):
        wanted = fraction * len(text)
        nearest = min(starts, key=lambda start: abs(start - wanted))
        parts = ask(answer, text, fraction)
        if (
            not isinstance(parts, tuple | list)
            or len(parts) != 2
            or not all(isinstance(p, str) for p in parts)
        ):
            raise Wrong(f"For {fraction}: expected two texts, (train, val).")
        if parts[0] + parts[1] != text:
            raise Wrong(
                f"For {fraction}: train and val together aren't the text; nothing may be lost or doubled."
            )
        cut = len(parts[0])
        if cut == int(wanted):
            raise Wrong(f"For {fraction} you cut at {cut:,}, in the middle of a play.")
        if cut != nearest:
            after = next((s for s in starts if s >= wanted), None)
            before = max((s for s in starts if s <= wanted), default=None)
            if cut in (after, before):
                raise Wrong(
                    f"For {fraction} you cut where a play begins, but {nearest:,} is nearer than {cut:,}."
                )
            raise Wrong(
                f"For {fraction}: expected a cut at {nearest:,}, the nearest beginning of a play; got {cut:,}."
            )
    return (
        "Now no play is in both parts, and val asks for a really new text. The lecture's cut leaves a third of The "
        "Taming of the Shrew in train, so the people of val are known; chapter 16 comes back to that."
    )


@exercise("01.4", Callable, "a function from {symbol: count} to {symbol: bits}")
def code_lengths(answer: Callable) -> str:
    texts = ("abracadabra", "hii there", "aaaabbbccd", "ab", load_corpus()[:50_000])
    for text in texts:
        counts = {c: text.count(c) for c in sorted(set(text))}
        lengths = ask(answer, counts)
        shown = repr(text) if len(text) < 20 else "the corpus's first 50,000 characters"
        if not isinstance(lengths, dict) or set(lengths) != set(counts):
            raise Wrong(f"For {shown}: expected a number of bits for each of its {len(counts)} characters.")
        if any(bits != int(bits) or bits < 1 for bits in lengths.values()):
            raise Wrong(
                f"For {shown}: a code word has a whole number of bits, at least 1; you have {min(lengths.values())}."
            )
        if (kraft := sum(2.0**-bits for bits in lengths.values())) > 1 + 1e-9:
            raise Wrong(
                f"For {shown}: there are no such codes; the sum of 2^-bits is {kraft:.2f}, at most 1 is possible."
            )
        total = sum(counts[c] * lengths[c] for c in counts)
        best, shannon = (
            huffman_bits(counts),
            sum(n * math.ceil(-math.log2(n / len(text))) for n in counts.values()),
        )
        if len(set(lengths.values())) == 1 and total > best:
            raise Wrong(f"For {shown}: all words are equally long. Frequent characters deserve short ones.")
        slips = {
            "You round -log2 p up, each on its own. That's a code, but joining the rarest two does better.": shannon
        }
        expect(total, best, f"For {shown}, all bits of the coded text", slips)
    return (
        "Huffman's code is the best with whole bits for each character: 4.8 for those of this corpus, where a byte has 8. "
        "Knowing what comes *before* a character, as our models do, makes it far shorter."
    )


def huffman_bits(counts: dict[str, int]) -> int:
    """The length of the text in Huffman's code: the sum of all joint counts."""
    order = count()
    heap = [(n, next(order)) for n in counts.values()]
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        joint = heapq.heappop(heap)[0] + heapq.heappop(heap)[0]
        total += joint
        heapq.heappush(heap, (joint, next(order)))
    return total
