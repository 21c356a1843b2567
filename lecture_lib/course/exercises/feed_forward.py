"""Checks of the exercises of 08_feed_forward."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from lecture_lib.feed_forward import FeedForward
from lecture_lib.multi_head import MultiHeadAttention
from lecture_lib.self_attention import Head, attention, causal_mask

from .asking import Wrong, ask, expect, number, tensor, truth
from .checking import exercise


@exercise("08.1", torch.Tensor, "a tensor of three numbers, w_a, w_b and the bias")
def and_unit(answer: torch.Tensor) -> str:
    w_a, w_b, bias = tensor(answer, (3,), "The unit").tolist()
    reasons = {
        (0, 0): "without any feature the bias alone decides, and it must not be positive",
        (1, 0): "one feature alone must not switch the unit on, so the bias has to hold it down",
        (0, 1): "one feature alone must not switch the unit on, so the bias has to hold it down",
        (1, 1): "both features together have to come out 1 above 0, after the bias",
    }
    for (a, b), reason in reasons.items():
        on, expected = max(0.0, w_a * a + w_b * b + bias), a * b
        if abs(on - expected) > 1e-5:
            raise Wrong(f"For a={a} and b={b} your unit gives {on:.4g}, expected {expected}: {reason}.")
    return (
        "The bias turns a sum of votes into a threshold: one vote isn't enough. Without the ReLU each feature would have to "
        "count for something even when it's alone."
    )


LAYERS: dict[
    str, tuple[Callable[[int, int], Callable], str]
] = {  # by T and C; those that mix tokens, and how
    "multi-head attention with its mask": (
        lambda T, C: MultiHeadAttention(C, 2, T),
        "a token's output depends on its past",
    ),
    "a head without a mask": (
        lambda T, C: Head(C, C, T, causal=False),
        "it treats all tokens alike, and yet each one's output depends on the others",
    ),
    "a layer that adds the token before": (
        lambda T, C: lambda x: x + F.pad(x, (0, 0, 1, 0))[:, :-1],
        "a token's output depends on its left neighbour",
    ),
    "a layer that adds the token after": (
        lambda T, C: lambda x: x + F.pad(x, (0, 0, 0, 1))[:, 1:],
        "a token's output depends on its right neighbour",
    ),
    "a layer that adds the middle token to the first, in the last row alone": (
        lambda T, C: lambda x: x + F.pad(x[-1:, T // 2, None], (0, 0, 0, T - 1, len(x) - 1, 0)),
        "one token's output depends on another",
    ),
    "a layer that subtracts the mean of the batch": (
        lambda T, C: lambda x: x - x.mean(0),
        "the rows of the batch depend on each other",
    ),
}
ALONE: dict[str, Callable[[int, int], Callable]] = {  # those that don't
    "a FeedForward": lambda T, C: FeedForward(C),
    "a layer that normalises the channels of each token": lambda T, C: nn.LayerNorm(C),
    "a layer that multiplies each token by its position": lambda T, C: lambda x: x * torch.arange(T)[:, None],
    "a layer that gives zeros": lambda T, C: torch.zeros_like,
}


@exercise("08.2", Callable, "a function from a layer and x to True or False")
def each_alone(answer: Callable) -> str:
    for B, T, C in ((3, 4, 6), (2, 5, 4)):
        for name, make in ALONE.items():
            if not truth(ask(answer, make(T, C), torch.randn(B, T, C))):
                raise Wrong(
                    f"You say that {name} mixes tokens, but each output depends on its own token alone. (The output of the "
                    "token that you change may change, and positions may be treated differently.)"
                )
        for name, (make, how) in LAYERS.items():
            if truth(ask(answer, make(T, C), torch.randn(B, T, C))):
                raise Wrong(f"You say that {name} takes each token alone, but {how}.")
    return "Communication or computation: one test tells for any layer, and it needs no look inside."


@exercise("08.3", Callable, "a function that takes a MultiHeadAttention, changes it and returns it")
def softened(answer: Callable) -> str:
    for C, n_head in ((12, 3), (16, 4), (16, 2)):
        heads, x = MultiHeadAttention(C, n_head, 7), 4 * torch.randn(2, 6, C)
        soft = ask(answer, heads)
        if not isinstance(soft, MultiHeadAttention):
            raise Wrong(f"Expected the MultiHeadAttention back; got {type(soft).__name__}.")
        share = 1 / n_head  # hs / C
        right = scaled(heads, x, share**0.5)
        expect(
            soft(x),
            right,
            f"The output of {n_head} heads for C={C}",
            {
                "Nothing has changed: the scores are still divided by the square root of hs.": scaled(
                    heads, x, 1
                ),
                "The scores have become larger; the square root of C is larger than that of hs, so they have to become "
                "smaller.": scaled(heads, x, n_head**0.5),
                "The scores are multiplied by hs / C; the square root of that is needed. (It's also what comes out if "
                "query and key are both multiplied by it.)": scaled(heads, x, share),
                "The scores are divided by the square root of C, and of hs as well: the head divides already.": (
                    scaled(heads, x, C**-0.5)
                ),
                "You changed the values, too, or instead; only the scores should change.": right * share**0.5,
                "You changed the values; the scores are made of queries and keys.": heads(x) * share**0.5,
            },
        )
        others = MultiHeadAttention(C, n_head, 7)
        others.load_state_dict(soft.state_dict())
        if not torch.allclose(others(x), right, rtol=0, atol=1e-5):
            raise Wrong(
                "The output is right, but other heads with these weights give another; change the weights."
            )
    return (
        "What a scale does, a weight can do as well. So the slip changes only where training begins: with scores half as "
        "large for four heads, and weights closer to a plain average."
    )


def scaled(heads: MultiHeadAttention, x: torch.Tensor, factor: float) -> torch.Tensor:
    """The output of the heads, with their scores multiplied by a factor."""
    mask = causal_mask(x.shape[1])
    outs = [attention(factor * head.query(x), head.key(x), head.value(x), mask)[0] for head in heads.heads]
    return torch.cat(outs, dim=-1).detach()


@exercise("08.4", Callable, "a function of xs (n,), ys (n,) and x (m,) that gives the line at x, (m,)")
def curve(answer: Callable) -> str:
    for n in (4, 2, 7):
        xs, ys = torch.randn(n).sort().values * 2, torch.randn(n)
        xs = xs + torch.arange(n)  # never too close to each other
        x = torch.cat([xs, torch.linspace(xs[0].item() - 2, xs[-1].item() + 2, 23)])
        slopes = ys.diff() / xs.diff()
        bends = slopes.diff(prepend=torch.zeros(1))
        right = summed(xs[:-1], bends, x) + ys[0]
        expect(
            ask(answer, xs, ys, x),
            right,
            f"The line through {n} points, at {len(x)} places (the {n} points first)",
            {
                "The height is missing: begin with ys[0].": right - ys[0],
                "Each unit goes on for ever, so the weight of a unit is the change of the slope at its point, not the "
                "slope after it.": summed(xs[:-1], slopes, x) + ys[0],
                "The rise between two points is no slope yet: divide it by their distance.": (
                    summed(xs[:-1], ys.diff().diff(prepend=torch.zeros(1)), x) + ys[0]
                ),
                "Your bends come one point too late: the slope after point i begins at xs[i].": (
                    summed(xs[1:], bends, x) + ys[0]
                ),
                "After the last point the line should go on as it came; yours becomes level there.": (
                    summed(xs, torch.cat([bends, -slopes[-1:]]), x) + ys[0]
                ),
                "Before the first point the line should be level; yours has the first slope there.": (
                    summed(xs[1:-1], bends[1:], x) + ys[0] + slopes[0] * (x - xs[0])
                ),
                "Without the ReLU every unit is a straight line, and so is their sum.": (
                    (x[:, None] - xs[:-1]) @ bends + ys[0]
                ),
            },
            atol=1e-4,
        )
    return (
        "One unit, one bend. With enough of them, and a linear layer to add them up, you can follow any curve as closely as "
        "you like, in many dimensions, too. That's what the width of a feed-forward layer is for."
    )


def summed(knots: torch.Tensor, weights: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A weighted sum of ReLUs that begin at the knots (n,), at the places x (m,)."""
    return F.relu(x[:, None] - knots) @ weights


@exercise("08.5", Callable, "a function of units (N, T, C), xb (N, T) and at_least that gives four ids")
def best_switch(answer: Callable) -> str:
    for at_least in (20, 40):
        units, xb = planted()
        pairs = xb[:, :-1], xb[:, 1:]
        share, count = shares(units[:, 1:] > 0, *pairs)
        best = widest(share, count, at_least)
        found = four_ids(ask(answer, units, xb, at_least), share.shape[1:])
        more, less, current, unit = found
        sentences = {
            "You compare how much a unit holds on average; what counts is how often it is on, that is, above 0.": (
                widest(*shares(units[:, 1:], *pairs), at_least)
            ),
            "You look at the units of the first character of each pair. They belong to the second: units[:, 1:].": (
                widest(*shares(units[:, :-1] > 0, *pairs), at_least)
            ),
            "The first character of a chunk has none before it: your pairs run across the ends of the chunks.": (
                widest(*shares(units.flatten(0, 1)[1:] > 0, xb.flatten()[:-1], xb.flatten()[1:]), at_least)
            ),
        }
        for sentence, slip in sentences.items():
            if found == slip != best:
                raise Wrong(sentence)
        for before in (more, less):
            if count[before, current] < at_least:
                raise Wrong(
                    f"Character {current} stands after {before} only {count[before, current]:.0f} times; pairs count from "
                    f"{at_least} times on. A rare pair easily has a share of 0 or 1 by chance."
                )
        gap, largest = (gap_of(share, *each) for each in (found, best))
        if abs(gap + largest) < 1e-6:
            raise Wrong(
                "The right case, but the first two ids are swapped: first the one after which the unit is on."
            )
        if gap < largest - 1e-6:
            raise Wrong(
                f"At character {current}, unit {unit} is on by {gap:.2f} more often after {more} than after {less}; with "
                f"at_least={at_least} there is a case with {largest:.2f}."
            )
    return (
        "A search like this finds what a unit stands for, where a look at averages finds nothing. The limit on rare pairs "
        "matters: without it the search finds chance."
    )


def four_ids(found: object, sizes: tuple[int, int]) -> tuple[int, int, int, int]:
    """A learner's answer as ids: two characters before, the current one, and the unit."""
    if not isinstance(found, tuple | list | torch.Tensor) or len(found) != 4:
        raise Wrong(f"Expected four ids, (more, less, current, unit); got {found!r}.")
    ids = tuple(int(number(each, "An id")) for each in found)
    if not all(0 <= id < size for id, size in zip(ids, (sizes[0], sizes[0], *sizes), strict=True)):
        raise Wrong(
            f"Expected three ids below {sizes[0]}, the characters, and one below {sizes[1]}, the unit; got {ids}."
        )
    return ids


def shares(
    held: torch.Tensor, before: torch.Tensor, current: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Means of units (..., C) for each pair of characters, (V, V, C), and the pairs' counts, (V, V)."""
    V = CHARACTERS
    pair, held = (before * V + current).flatten(), held.float().flatten(0, -2)
    count = pair.bincount(minlength=V * V)
    sums = torch.zeros(V * V, held.shape[1]).index_add(0, pair, held)
    return (sums / count.clamp(min=1)[:, None]).view(V, V, -1), count.view(V, V)


def widest(share: torch.Tensor, count: torch.Tensor, at_least: int) -> tuple[int, int, int, int]:
    """The ids (more, less, current, unit) with the widest gap between two characters before the same one."""
    rare = (count < at_least)[..., None]
    high, more = share.masked_fill(rare, float("-inf")).max(dim=0)  # (V, C) each
    low, less = share.masked_fill(rare, float("inf")).min(dim=0)
    current, unit = divmod((high - low).argmax().item(), share.shape[-1])
    return more[current, unit].item(), less[current, unit].item(), current, unit


def gap_of(share: torch.Tensor, more: int, less: int, current: int, unit: int) -> float:
    """By how much more often the unit is on after the one character than after the other."""
    return (share[more, current, unit] - share[less, current, unit]).item()


CHARACTERS = 7


def planted(N: int = 700, T: int = 4, C: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Units (N, T, C) and characters (N, T) with one switch, and something for each usual mistake to find.

    The characters are in random order. The last two of them are rare, and the one before these stands at the
    beginning of chunks only.
    """
    common = torch.tensor([5.0, 5, 5, 5, 0, 0.03, 0.03])
    xb = torch.multinomial(common, N * T, replacement=True).view(N, T)
    xb[torch.rand(N) < 0.4, 0] = 4
    units = torch.randn(N, T, C)

    def plant(where: torch.Tensor, unit: int, on: bool, chance: float) -> None:
        chosen = where & (torch.rand(N, T) < chance)
        units[..., unit] = torch.where(chosen, units[..., unit].abs() * (1 if on else -1), units[..., unit])

    before, after = xb.roll(1), xb.roll(-1)  # row after row
    first, last = torch.zeros(2, N, T, dtype=torch.bool)
    first[:, 0], last[:, -1] = True, True
    for character, on in ((0, True), (1, False)):
        plant(~first & (before == character) & (xb == 3), 2, on, 0.85)  # the switch
        plant(~last & (after == character) & (xb == 2), 3, on, 1.0)  # it would know the next character
        plant(first & (before == character) & (xb == 4), 4, on, 1.0)  # across the ends of chunks
    units[..., 5] *= torch.where(
        (before == 0) & (xb == 1) & (units[..., 5] > 0), 30.0, 1.0
    )  # seldom, but much
    names, places = torch.randperm(CHARACTERS), torch.randperm(C)
    return units[..., places], names[xb]
