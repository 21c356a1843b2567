"""The exercises of 13d_sizing."""

from answers import exercise_tests

OPERATIONS = "3 * sum(forward_flops(config).values()) * tokens"
BUDGET = "(memory - sum(parts.values())) // text"
FEWER = "config.n_layer * fewer_rows * (C + config.bias)"

TestExercises = exercise_tests(
    "13d",
    ("13d.1", "forward alone", "the forward pass alone", "3 * sum", "sum"),
    ("13d.1", "times mfu", "divide by mfu", "(peak * mfu)", "peak * mfu"),
    ("13d.1", "no mfu", "assumes the full peak", "(peak * mfu)", "peak"),
    ("13d.1", "seconds", "These are seconds", " / 86400", ""),
    ("13d.1", "hours", "These are hours", "86400", "3600"),
    (
        "13d.1",
        "rule of thumb",
        "the rule of thumb",
        "3 * sum(forward_flops(config).values())",
        "6 * sum(parameter_counts(config).values())",
    ),
    ("13d.1", "months", "expected 0.713", "86400", "(30 * 86400)"),
    ("13d.2", "kept only", "The peak is higher", "+ 2 * 4 * config.block_size * config.vocab_size", ""),
    ("13d.2", "one gradient", "you count one", "2 * 4 *", "4 *"),
    ("13d.2", "one too many", "too large by one", f"max(0, int({BUDGET}))", f"max(0, int({BUDGET}) + 1)"),
    ("13d.2", "fixed per text", "count them once", BUDGET, "memory // (sum(parts.values()) + text)"),
    ("13d.2", "nothing fixed", "need their place, too", BUDGET, "memory // text"),
    ("13d.2", "below 0", "can't be smaller than 0", f"max(0, int({BUDGET}))", f"int({BUDGET})"),
    ("13d.3", "no logits", "the logits' come on top", " + V / (2 * L)", ""),
    ("13d.3", "scores only", "the scores take 2TC", "6 * C + V / (2 * L)", "12 * C + V / L"),
    (
        "13d.3",
        "products only",
        "a multiplication and an addition",
        "6 * C + V / (2 * L)",
        "3 * C + V / (4 * L)",
    ),
    ("13d.3", "logits in each block", "not in each of the blocks", "V / (2 * L)", "V / 2"),
    ("13d.4", "biases", "fewer biases", "(C + config.bias)", "C"),
    ("13d.4", "keys only", "one of the two", "fewer_rows = 2 * (C - width)", "fewer_rows = C - width"),
    ("13d.4", "queries, too", "Queries stay as they were", "2 * (C - width)", "3 * (C - width)"),
    ("13d.4", "nothing changed", "with all heads' keys and values", FEWER, "0"),
    ("13d.4", "one block", "changed one block", FEWER, "fewer_rows * (C + config.bias)"),
    ("13d.4", "full cache", "This is the cache with all heads'", " * width // C", ""),
    ("13d.4", "no hs", "each has hs channels", "* width // C", "* n_kv_head // C"),
    ("13d.4", "keys' cache", "this is one of the two", "* width // C", "* width // (2 * C)"),
    ("13d.4", "a byte", "takes 4 bytes", "* width // C", "* width // (4 * C)"),
    ("13d.4", "one number", "Expected two numbers", "return parameters, ", "return "),
    ("13d.5", "one too large", "one step too large", "return n\n", "return n + 1\n"),
    ("13d.5", "one too small", "one step too small", "return n\n", "return n - 1\n"),
    ("13d.5", "forward alone", "You count the forward pass alone", "return 3 * sum", "return sum"),
    (
        "13d.5",
        "rule of thumb",
        "the rule of thumb",
        "return 3 * sum(forward_flops(config).values())",
        "return 6 * sum(parameter_counts(config).values())",
    ),
    ("13d.5", "a token each", "you count one", "20 * sum", "sum"),
)
