"""The exercises of 04_averaging."""

import torch
from answers import exercise_tests

TestExercises = exercise_tests(
    "04",
    ("04.1", "keepdim is there", "with keepdim=True", "sum(dim=1)  #", "sum(dim=1, keepdim=True)  #"),
    (
        "04.1",
        "sums of columns",
        "sums of the columns",
        "row_sums = wei.sum(dim=1)",
        "row_sums = wei.sum(dim=0)",
    ),
    ("04.1", "before the division", "before the division", "wei = wei / wei.sum(dim=1)", "wei = wei"),
    ("04.1", "a single sum", "expected shape (8,), got ()", torch.tensor(1.0)),
    ("04.2", "transposed", "transposed", "triu(1 - width)", "triu(1 - width).T"),
    ("04.2", "one too many", "width + 1 positions", "1 - width", "-width"),
    ("04.2", "one too few", "too few positions", "1 - width", "2 - width"),
    ("04.2", "another dim", "columns sum to 1", "dim=-1", "dim=0"),
    ("04.2", "no softmax", "softmax that makes", "wei.softmax(dim=-1)", "mask"),
    ("04.2", "no window", "All of the past", ".triu(1 - width)", ""),
    ("04.3", "sums", "You have the sums", " / counts", ""),
    (
        "04.3",
        "over rows",
        "position is dim=1",
        "dim=1) / counts",
        "dim=0) / torch.arange(1, 3)[:, None, None]",
    ),
    ("04.3", "divided by T", "divides by T", "/ counts", "/ T"),
    ("04.3", "leaks", "0 * inf is NaN", "x.cumsum(dim=1)", "torch.ones(T, T).tril() @ x"),
    (
        "04.3",
        "a loop",
        "there is a loop still",
        "x.cumsum(dim=1) / counts",
        "torch.stack([x[:, : t + 1].mean(1) for t in range(T)], 1)",
    ),
    (
        "04.3",
        "in place",
        "changes its argument in place",
        "x.cumsum(dim=1) / counts",
        "x.cumsum_(dim=1).div_(counts)",
    ),
    ("04.4", "growing", "grow with the distance", "-0.5", "0.5"),
    ("04.4", "twice as fast", "factor of e^-1", "-0.5", "-1.0"),
    ("04.4", "not divided", "weighted sums", "total / weights", "total"),
    (
        "04.4",
        "a matrix",
        "(T, T) matrix is made",
        "    return torch.stack(means, dim=1)",
        "    d = (torch.arange(x.shape[1])[:, None] - torch.arange(x.shape[1])).float()\n    return (-d / 2).masked_fill(d < 0, -torch.inf).softmax(-1) @ x",
    ),
    ("04.4", "no fading", "plain means", "-0.5", "0.0"),
)
