"""The exercises of 01_tokenization."""

from answers import exercise_tests

TestExercises = exercise_tests(
    "01",
    ("01.1", "what val has", "the ones that it lacks", 'set(tokenizer.chars) - ', ""),
    ("01.1", "the other way round", "Nothing is missing?", set()),
    ("01.1", "one that val has", "val does have 'e'", {"$", "e"}),
    ("01.1", "some of them", "there are 4", {"$", "&"}),
    ("01.1", "another one", "isn't one of the 65", {"$", "&", "3", "X", "é"}),
    ("01.1", "a list", "Expected a set", ["$", "&", "3", "X"]),
    ("01.2", "ord", "Bytes come from", "list(text.encode())", "[ord(c) for c in text]"),
    ("01.2", "another encoding", "its bytes in UTF-8", "text.encode()", 'text.encode("utf-16")'),
    ("01.2", "latin-1", "Bytes come from", "text.encode()", 'text.encode("latin-1")'),
    ("01.2", "replacing", "195 begins a letter", "decode()", 'decode(errors="replace")'),
    ("01.2", "a modulo", "no byte is 256", "bytes(ids)", "bytes([i % 256 for i in ids])"),
    ("01.3", "in a play", "in the middle of a play", "text[:cut], text[cut:]", "text[: int(fraction * len(text))], text[int(fraction * len(text)) :]"),
    ("01.3", "the one after it", "is nearer than", "abs(place - fraction * len(text))", "place < fraction * len(text)"),
    ("01.3", "a lost character", "nothing may be lost", "text[cut:]", "text[cut + 1 :]"),
    ("01.3", "places", "expected two texts", "text[:cut], text[cut:]", "cut, len(text) - cut"),
    ("01.4", "Shannon's", "round -log2 p up", "    return bits", "    total = sum(counts.values())\n    return {c: math.ceil(-math.log2(n / total)) for c, n in counts.items()}", "def code_lengths", "import math\ndef code_lengths"),
    ("01.4", "equally long", "all words are equally long", "    return bits", "    return dict.fromkeys(counts, 7)"),
    ("01.4", "too short", "no such codes", "    return bits", "    return dict.fromkeys(counts, 1)"),
    ("01.4", "fractions", "whole number of bits", "    return bits", "    return dict.fromkeys(counts, 2.5)"),
    ("01.4", "the most frequent joined", "all bits of the coded text", "groups.sort()", "groups.sort(reverse=True)"),
    ("01.4", "a list", "a number of bits for each", "    return bits", "    return list(bits.values())"),
)  # fmt: skip
