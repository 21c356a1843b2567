"""Checks of the exercises of 02_batches."""

from collections.abc import Callable
from itertools import accumulate, islice

import torch

from .asking import Wrong, ask, expect, several
from .checking import exercise
from .watching import refuse_loop, watched


@exercise("02.1", Callable, "a function of n and block_size that gives a number of chunks")
def how_many(answer: Callable) -> str:
    for n, block_size in ((13, 8), (1_003_854, 8), (1_003_854, 256), (10, 9)):
        expect(
            ask(answer, n, block_size),
            n - block_size,
            f"For n={n:,}, block_size={block_size}",
            {
                "One too many: the last chunk has no character left as the target of its last one.": n
                - block_size
                + 1,
                "One too few: a chunk needs block_size + 1 characters, and may end with the text.": n
                - block_size
                - 1,
                "Chunks may overlap; a new one begins at every character.": n // block_size,
            },
        )
    return "Nearly as many as characters: two chunks that begin next to each other are different examples."


@exercise("02.2", Callable, "a function of data (N,) and block_size that yields pairs x, y")
def each_once(answer: Callable) -> str:
    for N, T in ((41, 8), (40, 8), (100, 7)):
        orders = []
        for seed in (0, 1, 0):
            torch.manual_seed(seed)
            orders.append(starts(answer, N, T))
        expected = list(range(0, (N - 1) // T * T, T))
        if orders[0] != orders[2]:
            raise Wrong(
                f"For N={N}, block_size={T}: two orders under one seed; draw them by torch's generator alone."
            )
        if orders[0] == orders[1] and N == 100:
            raise Wrong(
                f"For N={N}, block_size={T}: the order is the same under two seeds; draw it by torch's generator."
            )
        for found in orders:
            if len(set(found)) < len(found):
                raise Wrong(f"For N={N}, block_size={T}: a chunk comes twice.")
            if sorted(found) == [*expected, expected[-1] + T]:
                raise Wrong(
                    f"For N={N}, block_size={T}: the last chunk has no target for its last character."
                )
            if len(found) > len(expected) + 1:
                raise Wrong(
                    f"For N={N}, block_size={T}: the chunks overlap; expected {len(expected)} of them."
                )
            if sorted(found) != expected:
                raise Wrong(
                    f"For N={N}, block_size={T}: expected chunks at {expected}, in any order; got {sorted(found)}."
                )
    return (
        "One such pass is an *epoch*. The lecture draws with replacement instead: after as many draws about a third of "
        "the chunks (1/e) would still be unseen. For long runs on much data it makes little difference."
    )


def starts(answer: Callable, N: int, T: int) -> list[int]:
    """Where the chunks begin that `answer` yields for the ids 0 to N - 1."""
    found = []
    for pair in islice(ask(answer, torch.arange(N), T), 10 * N):
        x, y = several(pair, 2, "Yield pairs, x and y.")
        if tuple(x.shape) != (T,) or tuple(y.shape) != (T,):
            raise Wrong(
                f"For N={N}, block_size={T}: x and y should be ({T},); got {tuple(x.shape)} and {tuple(y.shape)}."
            )
        if torch.equal(x, y):
            raise Wrong("y is x itself; the target is the character after each one.")
        if not torch.equal(y, x + 1) or not torch.equal(x, x[0] + torch.arange(T)):
            raise Wrong(
                f"x isn't {T} neighbours in order, with y the same one further: {x.tolist()}, {y.tolist()}."
            )
        found.append(int(x[0]))
    return found


@exercise(
    "02.3",
    Callable,
    "a function of data (N,) and block_size that gives x and y, (N - block_size, block_size)",
)
def all_at_once(answer: Callable) -> str:
    for N, T in ((13, 8), (50, 3)):
        data = torch.randint(1000, (N,))
        places = torch.arange(N - T)[:, None] + torch.arange(T)
        pair = ask(answer, data, T)
        several(pair, 2, "Expected two tensors, x and y.")
        slips = {"Position and chunk are exchanged: a chunk is a row.": data[places].T}
        expect(pair[0], data[places], f"x for N={N}, block_size={T}", slips)
        slips = {"y is x itself; the target is the character after each one.": data[places]}
        expect(pair[1], data[places + 1], f"y for N={N}, block_size={T}", slips)
    short, long = (watched(answer, torch.arange(N), 5) for N in (20, 60))
    refuse_loop(short, long, "a longer text takes")
    return (
        "All examples of a text in two tables. `unfold` doesn't even copy: its rows share the memory of the text, so the "
        "tables of a million chunks cost nothing until you pick rows of them."
    )


@exercise("02.4", Callable, "a function of lengths and block_size that gives a share")
def crossing(answer: Callable) -> str:
    for lengths, T in (([100, 50, 70], 8), ([30, 3, 2, 40], 8), ([1000, 1000], 256), ([9, 5], 4)):
        N, borders = sum(lengths), list(accumulate(lengths))[:-1]
        inside = [any(s < b <= s + T for b in borders) for s in range(N - T)]
        expect(
            ask(answer, lengths, T),
            sum(inside) / len(inside),
            f"For plays of {lengths} characters, block_size={T}",
            {
                "You look at x only. Its last target is the character after it, and may be another play's.": (
                    sum(any(s < b < s + T for b in borders) for s in range(N - T)) / len(inside)
                ),
                "A chunk that crosses two borders counts once, not twice.": (
                    sum(sum(s < b <= s + T for b in borders) for s in range(N - T)) / len(inside)
                ),
                "Divide by the number of chunks, N - block_size, not by the characters.": sum(inside) / N,
                "That's the number of chunks that cross; divide by how many there are.": sum(inside),
            },
            atol=1e-6,
        )
    return (
        "In the training split, with its few borders, it's one chunk in 18,000 for block_size 8, and one in 560 for "
        "256: not worth avoiding. With short texts it would be, and so chapter 14 never mixes two answers."
    )
