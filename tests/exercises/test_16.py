"""The exercises of 16_counts."""

from answers import exercise_tests

TestExercises = exercise_tests(
    "16",
    ("16.1", "nats as bits", "size in nats / 8", " / math.log(2)", ""),
    ("16.1", "bits", "in bits", " / 8", ""),
    ("16.1", "nats", "in nats, the loss", " / math.log(2) / 8", ""),
    ("16.1", "multiplied", "you have multiplied", "/ math.log(2)", "* math.log(2)"),
    ("16.2", "shared evenly", "shared out evenly", "taken * lower", "taken / len(lower)"),
    ("16.2", "not shared out", "don't sum to 1", " + taken * lower", ""),
    ("16.2", "no discounts", "aren't taken", "levels * shares[levels.long() - 1]", "0 * counts"),
    ("16.2", "no clamp", "Large counts lose too much", "discounts = levels *", "discounts = counts *"),
    ("16.2", "no counts", "NaN", "if counts.sum() == 0:", "if False:"),
    ("16.3", "occurrences", "how often each token occurs", "follows.sum(dim=0)", "torch.bincount(text, minlength=vocab_size)"),
    ("16.3", "pairs", "occurs after another", "follows.sum(dim=0)", "torch.bincount(text[1:], minlength=vocab_size)"),
    ("16.3", "followers", "what follows each token", "dim=0", "dim=1"),
    ("16.3", "a list", "got list", "follows.sum(dim=0)", "follows.sum(dim=0).tolist()"),
    ("16.4", "sees itself", "its own answer", "counts[before, after] / (counts.sum(dim=1)[before] - 1", "(counts[before, after] + 1) / (counts.sum(dim=1)[before]"),
    ("16.4", "total", "context's total", " - 1 + vocab_size", " + vocab_size"),
    ("16.4", "pair", "own count still", "counts[before, after] / (", "(counts[before, after] + 1) / ("),
    ("16.4", "sum", "sum over all places", "mean()", "sum()"),
    ("16.4", "sign", "sign is wrong", "return -probs", "return probs"),
    ("16.4", "a tensor of losses", "expected a number", ".mean().item()", ""),
)  # fmt: skip
