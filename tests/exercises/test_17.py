"""The exercises of 17_your_own_data."""

from answers import exercise_tests

TestExercises = exercise_tests(
    "17",
    ("17.1", "in nats", "That's in nats", " / math.log(2)", ""),
    ("17.1", "times ln 2", "divide by ln 2", "/ math.log(2)", "* math.log(2)"),
    ("17.1", "per token", "bits per token", " * tokens / characters", ""),
    ("17.1", "upside down", "upside down", "* tokens / characters", "* characters / tokens"),
    ("17.2", "copies", "on both sides", "list(dict.fromkeys(lines))", "list(lines)"),
    ("17.2", "old order", "in their old order", "random.Random(seed).shuffle(different)", "pass"),
    ("17.2", "another cut", "belong to training", "0.9", "0.8"),
    ("17.2", "one seed", "Seeds 1 and 2", "random.Random(seed)", "random.Random(3)"),
    ("17.2", "without a seed", "another split the second time", "random.Random(seed)", "random"),
    ("17.2", "loses the rest", "on neither side", "different[cut:]", "different[cut + 1 :]"),
    ("17.2", "one list", "two lists", "different[:cut], different[cut:]", "different"),
    ("17.2", "copies on one side", "more than once on one side", "return different[:cut], different[cut:]", "return different[:cut] + different[:1], different[cut:]"),
    ("17.3", "all of them", "the lowest of all losses", "return lowest, place + 1", "continue"),
    ("17.3", "the loss", "the loss itself", "return lowest, place + 1", "return losses[lowest], place + 1"),
    ("17.3", "the last place", "last place that the run saw", "return lowest, place + 1", "return place, place + 1"),
    ("17.3", "one too few", "begins at 1", "return lowest, place + 1", "return lowest, place"),
    ("17.3", "too long", "goes on too long", "return lowest, place + 1", "return lowest, place + 2"),
    ("17.3", "sees all", "doesn't stop", "return lowest, place + 1", "return lowest, len(losses)"),
    ("17.4", "too large for the text", "than the text has characters", "n <= characters and ", ""),
    ("17.4", "no time", "in the time", " and 60 * n**2 <= seconds * speed", ""),
    ("17.4", "one factor", "*parameter*", "60 * n**2", "60 * n"),
    ("17.4", "the smallest", "only for a text", "max(suits, default=min(sizes))", "min(sizes)"),
)  # fmt: skip
