"""The exercises of 03_bigram."""

from answers import exercise_tests

TestExercises = exercise_tests(
    "03",
    ("03.1", "a sum", "sum of all surprises", "picked.mean()", "picked.sum()"),
    ("03.1", "the sign", "wrong sign", "-picked", "picked"),
    ("03.1", "over time", "softmax runs over time", "F.log_softmax(logits, dim=-1)", "logits.log_softmax(1)"),
    ("03.1", "scores", "raw scores", "F.log_softmax(logits, dim=-1)", "logits"),
    ("03.1", "mean first", "average the probabilities", "picked.mean()", "picked.exp().mean().log()"),
    ("03.2", "multiplied", "multiply by", "logits / temperature", "logits * temperature"),
    ("03.2", "after", "divide the logits", "logits / temperature, dim=-1)", "logits, dim=-1) / temperature"),
    ("03.2", "columns", "columns sum to 1", "dim=-1", "dim=0"),
    ("03.2", "ignored", "no difference yet", "logits / temperature", "logits"),
    ("03.2", "scores", "the scores still", "F.softmax(logits / temperature, dim=-1)", "logits / temperature"),
    ("03.2", "in place", "in place", "logits / temperature", "logits.div_(temperature)"),
    ("03.3", "counted on ids", "count on `known`", "    C = vocab_size", "    known, C = ids, vocab_size"),
    ("03.3", "a sum", "sum of all surprises", ".log().mean()", ".log().sum()"),
    ("03.3", "all counts", "its own context", "counts.sum(dim=-1, keepdim=True)", "counts.sum()"),
    ("03.3", "one character", "last two", "view(C, C, C) + 1", "view(C, C, C).sum(0).expand(C, C, C) + 1"),
    ("03.3", "order", "opposite order", "ids[:-2], ids[1:-1]", "ids[1:-1], ids[:-2]"),
    (
        "03.1",
        "a loop",
        "there is a loop still",
        "-picked.mean()",
        "-sum(p for row in picked[..., 0] for p in row) / targets.numel()",
    ),
    (
        "03.1",
        "ready-made",
        "F.cross_entropy makes it",
        "return -picked.mean()",
        "return F.cross_entropy(logits.flatten(0, 1), targets.flatten())",
    ),
)
