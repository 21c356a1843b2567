"""The exercises of 01b_subwords."""

from answers import exercise_tests

TestExercises = exercise_tests(
    "01b",
    ("01b.1", "upside down", "upside down", "loss * tokens / characters", "loss * characters / tokens"),
    ("01b.1", "the same", "a token stands for several", "loss * tokens / characters", "loss"),
    ("01b.1", "the whole text", "the whole text", " / characters", ""),
    ("01b.2", "characters", "single characters", "length = longest", "length = 1"),
    ("01b.2", "not the longest", "the longest in turn", "longest, ids, place = max(map(len, vocabulary))", "longest, ids, place = 2"),
    ("01b.2", "one character on", "don't stand for that text", "place += length", "place += 1"),
    ("01b.2", "a tuple", "Expected a list", "return ids", "return tuple(ids)"),
    ("01b.3", "without frequencies", "multiply its pairs", "sign * frequencies[number]", "sign"),
    ("01b.3", "the largest of a tie", "the smaller pair comes first", "-pair[0], -pair[1]", "pair[0], pair[1]"),
    ("01b.3", "old counts stay", "neighbouring pairs change", "            note(number, -1)\n", ""),
    ("01b.3", "one merge", "merges, got 1", "        del counts[pair]", "        break"),
    ("01b.3", "nothing for many words", "others than those", "    found = []\n", "    found = []\n    if len(words) > 1000:\n        return found\n"),
    ("01b.3", "counted anew", "times as long", "        del counts[pair]", "        del counts[pair]\n        for _ in range(3):\n            Counter(p for word in spelled for p in pairwise(word))"),
)  # fmt: skip
