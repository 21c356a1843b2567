"""The exercises of 16c_speedrun."""

from answers import exercise_tests

TestExercises = exercise_tests(
    "16c",
    ("16c.1", "upside down", "upside down", "seconds / other_seconds", "other_seconds / seconds"),
    ("16c.1", "equal steps", "aren't equal time", "steps * seconds / other_seconds", "steps"),
    ("16c.1", "rounded up", "after the clock", "int(steps * seconds / other_seconds)", "-int(-steps * seconds // other_seconds)"),
    ("16c.1", "a part of a step", "whole steps", "int(steps * seconds / other_seconds)", "steps * seconds / other_seconds"),
    ("16c.2", "no softmax", "softmax is missing", ".log_softmax(dim=-1)", ""),
    ("16c.2", "probabilities", "These are probabilities", "log_softmax", "softmax"),
    ("16c.2", "a blend", "You blend", "(logits + trust * log_probs).log_softmax(dim=-1)", "(trust * log_probs.exp() + (1 - trust) * logits.softmax(-1)).log()"),
    ("16c.2", "trusts the network", "not to the network's", "logits + trust * log_probs", "trust * logits + log_probs"),
    ("16c.2", "no trust", "no difference", "trust * log_probs", "log_probs"),
    ("16c.3", "places", "count places", ".unique()", ""),
    ("16c.3", "rows", "count the rows", "(crowd[row] > 1)", "(crowd > 1)"),
    ("16c.3", "all of them", "row to themselves", "int((crowd[row] > 1).sum())", "len(different)"),
    ("16c.3", "without the first", "minus rows in use", "int((crowd[row] > 1).sum())", "len(different) - int((crowd > 0).sum())"),
    ("16c.4", "twice the same", "share both rows with another", "second % rows]", "numbers % rows]"),
    ("16c.4", "the next one", "share both rows with another", "second % rows]", "(numbers + 1) % rows]"),
    ("16c.4", "too large", "Row numbers are integers", "second % rows]", "second]"),
    ("16c.4", "fractions", "Row numbers are integers", "dim=1)", "dim=1) / 2"),
    ("16c.4", "chance", "asked for again", "numbers % rows,", "torch.randint_like(numbers, rows),"),
    ("16c.4", "by place", "in another order", "second % rows]", "torch.arange(len(numbers)) * 7919 // rows % rows]"),
    ("16c.4", "half a table", "uses only", "numbers % rows,", "numbers % 500,"),
    ("16c.4", "one row", "expected a tensor of shape", "torch.stack([numbers % rows, second % rows], dim=1)", "second % rows"),
)  # fmt: skip
