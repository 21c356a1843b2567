"""The exercises of 18_pretraining."""

from answers import exercise_tests

TestExercises = exercise_tests(
    "18",
    ("18.1", "all of them", "known characters are in your dict", "if c not in alphabet", ""),
    ("18.1", "each once", "each character once", "return Counter(c for c in text if c not in alphabet)", "return dict.fromkeys([c for c in text if c not in alphabet], 1)"),
    ("18.1", "a list", "Expected a dict", "return Counter(", "return list("),
    ("18.1", "zeros, too", "count of 0", "return Counter(", "return dict.fromkeys(alphabet, 0) | Counter("),
    ("18.2", "begins", "each of them covers", "for k in range(n)", "for k in range(1)"),
    ("18.2", "overlaps", "counts once", "{i + k", "[i + k", "for k in range(n)}", "for k in range(n)]"),
    ("18.2", "places", "divide by all characters", "/ len(b)", "/ (len(b) - n + 1)"),
    ("18.2", "the other way", "share of a's", "covered_share(a, b, n):", "covered_share(b, a, n):"),
    ("18.3", "no tables", "table is still trained", "[model.token_embedding_table, model.position_embedding_table, ", "["),
    ("18.3", "one too many", "it has to go on learning", "blocks[:n]", "blocks[: n + 1]"),
    ("18.3", "one too few", "is still trained", "blocks[:n]", "blocks[: max(0, n - 1)]"),
    ("18.3", "all counted", "number of all parameters", " if p.requires_grad", ""),
    ("18.3", "tensors", "number of tensors", "p.numel()", "1"),
    ("18.4", "upside down", "upside down", "factor ** (n_layer - 1 - i)", "factor**i"),
    ("18.4", "one rate", "same rate as the last", "factor ** (n_layer - 1 - i)", "factor ** 0"),
    ("18.4", "tables as the first block", "one more factor", "factor**n_layer", "factor ** (n_layer - 1)"),
    ("18.4", "no norm", "in no group", "list(model.body.ln.parameters())", "[]"),
    ("18.4", "head again", "in the groups twice", "list(model.body.ln.parameters())", "[*model.body.ln.parameters(), model.lm_head.weight]"),
)  # fmt: skip
