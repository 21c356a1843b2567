"""Checks of the exercises of 13b_generation."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from .asking import Wrong, ask, expect, several, tensor
from .checking import exercise
from .single_head import cuts

# ---------------------------------------------------------------- 13b.1


@exercise("13b.1", Callable, "a function of T and n that gives two numbers")
def tokens_read(answer: Callable) -> str:
    for T, n in ((6, 100), (10, 1), (1, 3)):
        given = ask(answer, T, n)
        several(given, 2, "Expected two numbers: tokens read without a cache, and with one.")
        again = sum(T + i for i in range(n))
        expect(
            given[0],
            again,
            f"Without a cache, for a prompt of {T} tokens and {n} new ones",
            {
                "The last new token is written, but never read; you count it.": again + n,
                "The text grows: each step reads one token more than the step before.": T * n,
                "This is what the cache reads; without it, each step reads the whole text so far.": T + n - 1,
            },
        )
        expect(
            given[1],
            T + n - 1,
            f"With a cache, for a prompt of {T} tokens and {n} new ones",
            {
                "The last new token is written, but never read; you count it.": T + n,
                "The prompt has to be read, too, once.": n,
                "Reading the prompt already gives the first new token.": T + n + 1,
                "This is what is read without a cache.": again,
            },
        )
    return (
        "For 'ROMEO:' and 100 characters that's 5,550 tokens or 105. Without a cache the work grows with the "
        "square of the length, with it in proportion to it, but for the attention to what is kept."
    )


# ---------------------------------------------------------------- 13b.2


@exercise("13b.2", Callable, "a function of logits (B, vocab_size) and a share that gives such logits")
def least_share(answer: Callable) -> str:
    for share in (0.1, 0.5, 0.01):
        logits = 3 * torch.randn(4, 12) + torch.tensor([[0.0], [5.0], [-5.0], [1.0]])  # (B, vocab_size)
        cut = cuts(logits, share)
        expect(
            ask(answer, logits, share),
            cut["right"],
            f"For random logits (4, 12) and share={share}",
            {
                "You keep what is likelier than the share itself; it's a share of the likeliest one's.": (
                    cut["not relative"]
                ),
                "The likeliest of all rows sets the bar for all; each row has its own.": (
                    cut["one bar for all rows"]
                ),
                "Logits aren't probabilities: you compare with a share of the highest logit.": cut[
                    "by logits"
                ],
                "What is left out has logit 0, which is a probability like any other; it needs -inf.": cut[
                    "zeros"
                ],
                "You leave out what should stay, and keep the rest.": cut["the others"],
                "These are probabilities; hand back logits.": cut["probabilities with 0"],
            },
        )
    if not torch.isfinite(ask(answer, torch.zeros(1, 5), 1.0)).all():
        raise Wrong("With share=1, tokens as likely as the likeliest should stay; yours lose them.")
    return (
        "Where the model is sure, few tokens stay, where it isn't, many: as with top-p. In logits it's a plain "
        "subtraction: a token stays if it's at most -ln(share) below the highest. No sorting is needed."
    )


# ---------------------------------------------------------------- 13b.3


@exercise("13b.3", Callable, "a function of logits (B, vocab_size) and B generators that gives (B, 1)")
def own_seeds(answer: Callable) -> str:
    logits = torch.randn(1, 40).expand(3, 40).clone()  # (B, vocab_size), each row alike

    def texts(seeds: list[int], steps: int = 30, temperature: float = 1.0) -> torch.Tensor:
        """What rows with these seeds draw in some steps: (B, steps)."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        drawn = [answer(logits[: len(seeds)].clone(), generators, temperature) for _ in range(steps)]
        shape = (len(seeds), 1)
        return torch.cat([tensor(each, shape, "What is drawn in one step") for each in drawn], dim=1)

    together = texts([1, 2, 3])
    if together.is_floating_point() or not ((together >= 0) & (together < 40)).all():
        raise Wrong("Expected ids, whole numbers from 0 to vocab_size - 1.")
    if (together == together[:, :1]).all():
        raise Wrong(
            "Every step draws the same: does each draw start from the seed again, or take the likeliest?"
        )
    if torch.equal(together[0], together[1]) and torch.equal(together[1], together[2]):
        raise Wrong("Rows with different seeds draw the same: do they all use the first generator's numbers?")
    if not torch.equal(together, texts([1, 2, 3])):
        raise Wrong("The same seeds give other draws the second time: hand `generator` to torch.multinomial.")
    for i, seed in enumerate([1, 2, 3]):
        if not torch.equal(texts([seed])[0], together[i]):
            raise Wrong(
                f"Row {i}, with seed {seed}, draws something else alone than in the batch: the rows draw from "
                "one generator, in turns."
            )
    for temperature in (1.0, 0.5, 2.0):
        drawn = texts([4, 5, 6], 700, temperature).flatten()
        shares = torch.bincount(drawn, minlength=40) / len(drawn)
        found = {
            name: (shares - wanted).abs().sum().item()
            for name, wanted in {
                "right": F.softmax(logits[0] / temperature, dim=-1),
                "The temperature multiplies the logits; they should be divided by it.": (
                    F.softmax(logits[0] * temperature, dim=-1)
                ),
                "The temperature makes no difference: divide the logits by it.": F.softmax(logits[0], dim=-1),
                "Every token is drawn equally often: draw by the softmax of the logits.": torch.ones(40) / 40,
            }.items()
        }
        nearest = min(found, key=found.get)
        if nearest != "right":
            raise Wrong(nearest)
        if found["right"] > 0.3:
            raise Wrong(f"At temperature={temperature}, tokens aren't drawn as often as their softmax says.")
    sure = 100.0 * F.one_hot(torch.tensor([7, 0, 39]), 40)  # (B, vocab_size), each row sure of another token
    if answer(sure, [torch.Generator().manual_seed(1) for _ in sure]).flatten().tolist() != [7, 0, 39]:
        raise Wrong("Each row has logits of its own; yours draws a token that its row has all but ruled out.")
    return (
        "A row's text now hangs on its own prompt and seed alone, not on who else is in the batch. Servers that "
        "answer many users at once need just that."
    )


# ---------------------------------------------------------------- 13b.4


@exercise("13b.4", Callable, "a function of q, k and v that gives the outputs of all heads")
def alibi(answer: Callable) -> str:
    for n_head, T, T_k in ((4, 6, 6), (8, 1, 5), (2, 3, 7)):
        q = torch.randn(2, n_head, T, 8)
        k, v = (torch.randn(2, n_head, T_k, 8) for _ in range(2))
        h = torch.arange(1, n_head + 1)
        right = {"slopes": 2.0 ** (-8 * h / n_head), "offset": T_k - T}
        expect(
            ask(answer, q, k, v),
            biased(q, k, v, **right),
            f"For n_head={n_head}, {T} queries and {T_k} keys",
            {
                "The first slope is 2^(-8/n_head), not 1: the heads count from 1 here.": biased(
                    q, k, v, **right | {"slopes": 2.0 ** (-8 * (h - 1) / n_head)}
                ),
                "Far keys gain by your bias; the distance should cost: -slope * distance.": biased(
                    q, k, v, **right | {"slopes": -right["slopes"]}
                ),
                "The queries are the last T of the T_k tokens: query 0 stands at position T_k - T, not 0.": (
                    biased(q, k, v, **right | {"offset": 0})
                ),
                "There is no causal mask: the future is visible.": biased(q, k, v, **right, causal=False),
                "The products aren't scaled by hs**-0.5.": biased(q, k, v, **right, scale=1.0),
                "The bias is scaled, too; only the products are.": biased(
                    q, k, v, **right | {"slopes": right["slopes"] * 8**-0.5}
                ),
                "There's no bias yet: this is plain attention.": biased(q, k, v, **right | {"slopes": 0 * h}),
                "All heads have one slope; head h's is 2^(-8h/n_head).": biased(
                    q, k, v, **right | {"slopes": right["slopes"][:1].expand(n_head)}
                ),
            },
        )
    return (
        "Only distances count now, no positions. So a kept key never becomes invalid: when the context is full, "
        "the cache can drop its oldest, and section 5's re-reading isn't needed."
    )


def biased(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    slopes: torch.Tensor,
    offset: int,
    causal: bool = True,
    scale: float = 8**-0.5,
) -> torch.Tensor:
    """Attention whose scores lose slope * distance in each head; query 0 stands at position `offset`."""
    at = torch.arange(q.shape[2])[:, None] + offset  # (T, 1)
    distance = at - torch.arange(k.shape[2])  # (T, T_k)
    scores = q @ k.transpose(-2, -1) * scale - slopes[:, None, None] * distance  # (B, n_head, T, T_k)
    if causal:
        scores = scores.masked_fill(distance < 0, float("-inf"))
    return scores.softmax(dim=-1) @ v
