"""The exercises of 02_batches."""

from answers import exercise_tests

TestExercises = exercise_tests(
    "02",
    ("02.1", "no target", "One too many", "n - block_size", "n - block_size + 1"),
    ("02.1", "one too few", "One too few", "n - block_size", "n - block_size - 1"),
    ("02.1", "side by side", "may overlap", "n - block_size", "n // block_size"),
    ("02.2", "in order", "the same under two seeds", "torch.randperm((len(data) - 1) // block_size)", "torch.arange((len(data) - 1) // block_size)"),
    ("02.2", "another generator", "two orders under one seed", "torch.randperm((len(data) - 1) // block_size).tolist()", "__import__('random').sample(range((len(data) - 1) // block_size), (len(data) - 1) // block_size)"),
    ("02.2", "with replacement", "comes twice", "torch.randperm((len(data) - 1) // block_size)", "torch.randint(4, (9,))"),
    ("02.2", "no target", "should be (8,)", "(len(data) - 1) // block_size", "len(data) // block_size"),
    ("02.2", "not shifted", "y is x itself", "data[start + 1 : start + block_size + 1]", "x"),
    ("02.2", "overlapping", "the chunks overlap", "(len(data) - 1) // block_size", "len(data) - block_size", "i * block_size", "i"),
    ("02.2", "without the last", "in any order", "(len(data) - 1) // block_size)", "(len(data) - 1) // block_size - 1)"),
    ("02.2", "endless", "comes twice", "    for i in", "    while True:\n     for i in"),
    ("02.2", "only x", "Yield pairs", "yield x, y", "yield x"),
    ("02.3", "exchanged", "a chunk is a row", "data[:-1].unfold(0, block_size, 1)", "data[:-1].unfold(0, block_size, 1).T"),
    ("02.3", "not shifted", "y is x itself", "data[1:].", "data[:-1]."),
    ("02.3", "a loop", "there is a loop still", "data[1:].unfold(0, block_size, 1)", "torch.stack([data[i + 1 : i + 1 + block_size] for i in range(len(data) - block_size)])"),
    ("02.3", "side by side", "expected shape (5, 8)", "data[:-1].unfold(0, block_size, 1)", "data[:-1].unfold(0, block_size, block_size)"),
    ("02.3", "one table", "Expected two tensors", ", data[1:].unfold(0, block_size, 1)", ""),
    ("02.4", "inputs only", "You look at x only", "play[:-block_size] != play[block_size:]", "play[:-block_size] != play[block_size - 1 : -1]"),
    ("02.4", "twice", "counts once", "    return crosses.float().mean().item()", "    borders = (play[1:] != play[:-1]).float()\n    return borders.unfold(0, block_size, 1).sum(1).mean().item()"),
    ("02.4", "of all characters", "Divide by the number of chunks", "crosses.float().mean().item()", "crosses.sum().item() / len(play)"),
    ("02.4", "a number", "divide by how many", "crosses.float().mean().item()", "crosses.sum().item()"),
)  # fmt: skip
