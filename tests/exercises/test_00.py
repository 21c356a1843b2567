"""The exercises of 00_intro."""

from answers import exercise_tests

TestExercises = exercise_tests(
    "00",
    ("00.1", "a count", "how often it happens", " / counts.total()", ""),
    ("00.1", "by length", "length of the text", "counts.total()", "len(text)"),
    (
        "00.1",
        "no overlaps",
        "overlap",
        "return counts",
        "return text.count(context + character) / text.count(context) or counts",
    ),
    ("00.1", "the others", "all other characters", "return counts", "return 1 - counts"),
    ("00.2", "the loss", "This is the loss", "math.exp(loss)", "loss"),
    ("00.2", "a sum", "sum of the surprises", " / len(surprises)", ""),
    ("00.2", "the sign", "sign is wrong", "math.log(1 / p)", "math.log(p)"),
    ("00.2", "base 2", "one base for both", "math.log(1 / p)", "math.log2(1 / p)"),
    (
        "00.2",
        "mean of 1/p",
        "average 1/p itself",
        "math.exp(loss)",
        "sum(1 / p for p in probabilities) / len(surprises)",
    ),
    (
        "00.3",
        "nothing for new ones",
        "empty context is left",
        "return counts",
        "return None if parts[0] not in text else counts",
    ),
    ("00.3", "a pair", "one character", "[0][0]", "[0]"),
    (
        "00.3",
        "shortest first",
        "longest context first",
        "range(len(context) + 1)",
        "range(len(context), -1, -1)",
    ),
    ("00.3", "the beginning", "from the front", "context[start:]", "context[: len(context) - start]"),
)
