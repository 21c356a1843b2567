"""Checks of the exercises of 16_counts."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch

from .asking import ask, expect
from .checking import exercise


@exercise("16.1", Callable, "a function of a loss and a number of characters that gives bytes")
def compressed_size(answer: Callable) -> str:
    for loss, characters in ((math.log(2), 800), (1.466, 111_540), (4.17, 1_000)):
        bits = loss * characters / math.log(2)
        expect(
            ask(answer, loss, characters),
            bits / 8,
            f"For a loss of {loss:.4g} and {characters:,} characters",
            {
                "That's the size in nats / 8: a nat is 1 / ln 2 = 1.44 bits.": loss * characters / 8,
                "That's the size in bits. A byte has eight of them.": bits,
                "That's the size in nats, the loss times the characters.": loss * characters,
                "To turn nats into bits, divide by ln 2; you have multiplied.": loss
                * characters
                * math.log(2)
                / 8,
            },
            atol=1e-3 * bits,
        )
    return (
        "A model and an arithmetic coder make a compressor: with a loss of 1.466 the validation split fits into "
        "29.5 kB, 2.1 bits for each character. A lower loss and a smaller file are one goal."
    )


@exercise(
    "16.2", Callable, "a function of counts (V,), shares (4,) and lower (V,) that gives probabilities (V,)"
)
def discounted(answer: Callable) -> str:
    lower = torch.tensor([0.4, 0.3, 0.2, 0.1])
    shares = torch.tensor([0.5, 0.25, 0.2, 0.1])
    for counts in ([2.0, 1.0, 0.0, 0.0], [9.0, 3.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 40.0, 1.0]):
        counts = torch.tensor(counts)
        kept, taken = parted(counts, shares)
        total = counts.sum()
        slips = {}
        if total:
            slips = {
                "What was taken is shared out evenly; the shorter context's probabilities should share it.": (
                    (kept + taken / 4) / total
                ),
                "What was taken is missing: your numbers don't sum to 1.": kept / total,
                "These are the plain shares of the counts; the discounts aren't taken.": counts / total,
                "Large counts lose too much: from a count above 3 take shares[3] four times, not by its size.": (
                    (counts - counts * level(counts, shares) + (counts * level(counts, shares)).sum() * lower)
                    / total
                ),
            }
        expected = (kept + taken * lower) / total if total else lower
        expect(ask(answer, counts, shares, lower), expected, f"For counts {counts.tolist()}", slips)
    return (
        "A token that never followed this context gets a probability from the shorter one, and nothing is lost: "
        "what some lose others gain. A context without counts passes on what the shorter one says."
    )


def level(counts: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """The share for each count, 0 for a count of 0."""
    return torch.where(counts > 0, shares[(counts.clamp(1, 4) - 1).long()], 0.0)


def parted(counts: torch.Tensor, shares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What stays of the counts, and the sum of what is taken."""
    discounts = counts.clamp(max=4) * level(counts, shares)
    return counts - discounts, discounts.sum()


@exercise("16.3", Callable, "a function of ids (N,) and vocab_size that gives (vocab_size,) numbers")
def continuations(answer: Callable) -> str:
    for ids, V in (([0, 1, 0, 1, 0, 1, 2, 1], 4), ([3, 3, 3, 2], 4), (torch.randint(5, (60,)).tolist(), 6)):
        text = torch.tensor(ids)
        pairs = {(a, b) for a, b in pairwise(ids)}
        before = torch.tensor([float(len({a for a, b in pairs if b == v})) for v in range(V)])
        after = torch.tensor([float(len({b for a, b in pairs if a == v})) for v in range(V)])
        result = ask(answer, text, V)
        expect(
            result.float() if isinstance(result, torch.Tensor) else result,
            before,
            f"For text {ids if len(ids) < 10 else 'of 60 random ids'}",
            {
                "That's how often each token occurs. Count each kind of neighbour once.": (
                    torch.bincount(text, minlength=V).float()
                ),
                "That's how often each token occurs after another; count each different one once.": (
                    torch.bincount(text[1:], minlength=V).float()
                ),
                "You count what follows each token. Continuation counts ask what it follows.": after,
            },
        )
    return (
        "`Francisco` is frequent, but follows little else than `San`: after a new context it's a bad guess, and its "
        "continuation count says so. That's what the shorter context is asked for."
    )


@exercise("16.4", Callable, "a function of ids (N,) and vocab_size that gives the loss in nats")
def leaving_one_out(answer: Callable) -> str:
    for V, N in ((3, 40), (5, 30), (7, 200)):
        text = torch.randint(V, (N,))
        counts = torch.zeros(V, V)
        counts.index_put_((text[:-1], text[1:]), torch.ones(N - 1), accumulate=True)
        seen, total = counts[text[:-1], text[1:]], counts.sum(1)[text[:-1]]

        def loss(here: torch.Tensor, all_here: torch.Tensor) -> float:
            return (all_here.log() - here.log()).mean().item()

        expect(
            ask(answer, text, V),
            loss(seen, total - 1 + V),
            f"For {N} random ids, vocab_size={V}",
            {
                "Each place still sees its own answer in the counts: take it out before you predict.": (
                    loss(seen + 1, total + V)
                ),
                "The pair is taken out of its own count, but not out of the context's total.": loss(
                    seen, total + V
                ),
                "The total is one lower, but the pair's own count still has the answer in it.": (
                    loss(seen + 1, total - 1 + V)
                ),
                "That's the sum over all places; the loss is their mean.": loss(seen, total - 1 + V)
                * (N - 1),
                "The sign is wrong: a loss is minus the log-probability.": -loss(seen, total - 1 + V),
            },
            atol=1e-4,
        )
    return (
        "Leaving one out turns training text into held-out text, at the price of a subtraction. For real text one "
        "place is too little, since a play repeats itself; so the chapter leaves out a part of a play."
    )
