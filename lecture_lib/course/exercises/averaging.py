"""Checks of the exercises of 04_averaging."""

from collections.abc import Callable

import torch

from lecture_lib.averaging import average_loops

from .asking import Wrong, ask, expect
from .checking import exercise
from .watching import refuse_loop, watched


@exercise("04.1", torch.Tensor, "a tensor of 8 sums, one for each row of wei")
def forgotten_keepdim(answer: torch.Tensor) -> str:
    tril = torch.ones(8, 8).tril()
    by_column = tril / tril.sum(dim=1)
    expect(
        answer,
        by_column.sum(dim=1),
        "The sums",
        {
            "These are the sums with keepdim=True: each row is divided by its own count. Leave keepdim out.": (
                torch.ones(8)
            ),
            "These are the sums of the columns. The weights of one position stand in a row: sum over dim=1.": (
                by_column.sum(dim=0)
            ),
            "These are the sums before the division, how many ones each row has.": tril.sum(dim=1),
        },
        atol=1e-3,
    )
    return (
        "(T, T) / (T,) divides column j by j + 1, so that no row but the first sums to 1: row 7 sums to 2.72. "
        "Nothing complains, and the means are wrong."
    )


@exercise("04.2", Callable, "a function of T and width that gives the (T, T) weights")
def sliding_window(answer: Callable) -> str:
    for T, width in ((8, 3), (6, 2), (5, 1), (4, 9)):
        mask = torch.ones(T, T).tril().triu(1 - width)
        wider, narrower = torch.ones(T, T).tril().triu(-width), torch.ones(T, T).tril().triu(2 - width)
        expect(
            ask(answer, T, width),
            mask / mask.sum(1, keepdim=True),
            f"wei for T={T}, width={width}",
            {
                "Row t of wei gets the future: your mask is transposed.": (
                    mask.T / mask.T.sum(1, keepdim=True)
                ),
                "These are ones and zeros; the softmax that makes each row sum to 1 is missing.": mask,
                f"With width={width} a position sees width + 1 positions; it should count as one of them.": (
                    wider / wider.sum(1, keepdim=True)
                ),
                f"With width={width} a position sees too few positions, by one.": (
                    narrower / narrower.sum(1, keepdim=True)
                ),
                "The columns sum to 1, not the rows: over which dim is the softmax?": mask / mask.sum(0),
                "All of the past is there still: positions before t - width + 1 have to be masked, too.": (
                    torch.ones(T, T).tril() / torch.arange(1.0, T + 1)[:, None]
                ),
            },
        )
    return "A window is only another mask. Large models use it to read long texts cheaply."


@exercise("04.3", Callable, "a function from (B, T, C) to the (B, T, C) means of each position and its past")
def no_leak(answer: Callable) -> str:
    x = torch.randn(2, 7, 3)
    means = average_loops(x)
    expect(
        ask(answer, x),
        means,
        "For random x of shape (2, 7, 3)",
        {
            "You have the sums; each still has to be divided by how many positions it covers.": x.cumsum(1),
            "The mean runs over the rows of the batch or the channels; position is dim=1.": (
                x.cumsum(0) / torch.arange(1.0, 3)[:, None, None]
            ),
            "Every position divides by T; position t has only t + 1 positions to average.": x.cumsum(1) / 7,
        },
    )
    x[0, 5] = float("inf")
    kept = ask(answer, x)
    if not torch.isfinite(kept[0, :5]).all():
        raise Wrong(
            f"The inf in x[0, 5] leaks: position 0 became {kept[0, 0, 0].item()}, expected "
            f"{means[0, 0, 0].item():.4f}. A product with a weight of 0 isn't nothing: 0 * inf is NaN."
        )
    if not torch.isinf(kept[0, 5:]).all():
        raise Wrong("Positions 5 and 6 come after the inf, so their means are infinite; yours aren't.")
    short, long = (watched(answer, torch.randn(1, T, 2)) for T in (5, 20))
    refuse_loop(short, long, "more positions take")
    return (
        "A running sum never touches the future. Versions 2 and 3 multiply it by 0, and 0 * inf is NaN, so a "
        "broken value later in the text spoils what comes before. It's cheaper, too: T steps, not T * T."
    )


@exercise("04.4", Callable, "a function from (B, T, C) to the (B, T, C) fading means")
def fading_memory(answer: Callable) -> str:
    for T in (1, 2, 9):
        x = torch.randn(2, T, 3)
        expect(
            ask(answer, x),
            faded(x, 0.5),
            f"For random x of shape (2, {T}, 3)",
            {
                "Your weights grow with the distance; the affinity is -(t - s) / 2, with a minus.": faded(
                    x, -0.5
                ),
                "Each step back costs a factor of e^-1; the affinity -(t - s) / 2 makes it e^-0.5.": faded(
                    x, 1.0
                ),
                "You have the weighted sums; softmax also divides by the sum of the weights.": faded_sums(x),
                "These are plain means: the affinities make no difference yet.": faded(x, 0.0),
            },
        )
    if watched(answer, torch.randn(1, 100, 1)).largest >= 100 * 100:
        raise Wrong("The numbers are right, but a (T, T) matrix is made; keep a running sum instead.")
    return (
        "A position listens to the near past, and one running sum with a factor of e^-0.5 gives the same: "
        "attention whose weights depend on distance alone is a recurrent network with one number of memory."
    )


def faded_sums(x: torch.Tensor) -> torch.Tensor:
    """Sums of each position and its past with weights exp(-distance / 2)."""
    places = torch.arange(x.shape[1])
    distance = (places[:, None] - places).float()
    return (-distance / 2).exp().tril() @ x


def faded(x: torch.Tensor, rate: float) -> torch.Tensor:
    """Means of each position and its past, weighted by a softmax over -rate * distance."""
    places = torch.arange(x.shape[1])
    distance = (places[:, None] - places).float()
    wei = (-rate * distance).masked_fill(distance < 0, float("-inf")).softmax(dim=-1)
    return wei @ x
