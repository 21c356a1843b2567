"""Checks of the exercises of 05_self_attention."""

import weakref
from collections.abc import Callable, Iterator

import torch

from lecture_lib.self_attention import Head, attention, causal_mask

from .asking import Wrong, ask, expect
from .checking import exercise
from .watching import Watched


@exercise("05.1", Callable, "a function of q, k, v and t that gives the output of token t, (hs,)")
def by_hand(answer: Callable) -> str:
    for T, hs, t in ((8, 16, 6), (5, 4, 0), (6, 3, 2), (4, 8, 3)):
        q, k, v = torch.randn(3, T, hs)
        scores = k @ q[t] / hs**0.5  # (T,), those of the future among them
        past, values = scores[: t + 1], v[: t + 1]
        expect(
            ask(answer, q, k, v, t),
            past.softmax(0) @ values,
            f"The output of token {t} of {T}, for hs={hs}",
            {
                f"Token {t} has looked at all {T} tokens; it may see positions 0 to {t} only.": (
                    scores.softmax(0) @ v
                ),
                f"Token {t} is missing from its own average: j runs from 0 to {t}, both included.": (
                    scores[:t].softmax(0) @ v[:t]
                ),
                "The scores aren't divided by the square root of hs.": (past * hs**0.5).softmax(0) @ values,
                "The scores are divided by hs; the formula says by its square root.": (
                    (past / hs**0.5).softmax(0) @ values
                ),
                "You average the keys. A key only says what a token has; what it passes on is its value.": (
                    past.softmax(0) @ k[: t + 1]
                ),
                "The roles are swapped: here the key of token t meets the queries of the others.": (
                    (q[: t + 1] @ k[t] / hs**0.5).softmax(0) @ values
                ),
                "The scores themselves weigh the values; the softmax is missing.": past @ values,
                "All weights are equal, as in chapter 04; the scores have no effect yet.": values.mean(0),
            },
        )
    return "That's all of attention. The matrix products only do it for every token and every text at once."


@exercise("05.2", Callable, "a function from q, k, v, (B, T, hs) each, to the output (B, T, hs)")
def before_itself(answer: Callable) -> str:
    for T in (6, 2, 1):
        q, k, v = torch.randn(3, 2, T, 4)
        out = ask(answer, q, k, v)
        if isinstance(out, torch.Tensor) and out.shape == v.shape and out[:, 0].isnan().any():
            raise Wrong(
                "Token 0 has nobody to attend to: its scores are all -inf, and their softmax is 0/0, NaN. "
                "Expected zeros."
            )
        right = strictly_before(q, k, v)
        first, later = v[:, :1], right[:, 1:]
        expect(
            out,
            right,
            f"The output for {T} tokens",
            {
                "Every token still attends to itself: the diagonal of the mask has to go.": (
                    attention(q, k, v, causal_mask(T))[0]
                ),
                "Token 0 passes its own value on to itself; expected zeros.": torch.cat([first, later], 1),
                "Token 0 gets the mean of all tokens, the future included. If all scores of a row are masked "
                "with the same large number, softmax makes equal weights of them.": (
                    torch.cat([v.mean(1, keepdim=True), later], 1)
                ),
                "Every token may see the later ones, not the earlier ones: the mask is transposed.": (
                    strictly_before(q.flip(1), k.flip(1), v.flip(1)).flip(1)
                ),
            },
        )
    for name, ours, expected in zip("qkv", gradients(answer), gradients(strictly_before), strict=True):
        if ours is None or ours.isnan().any():
            raise Wrong(
                f"The output is right, but its gradient for {name} is {'missing' if ours is None else 'NaN'}, "
                "and training would break. The gradients are products with wei, whose first row is still NaN, and "
                "0 * NaN is NaN; repair it before the values are averaged."
            )
        expect(ours, expected, f"The gradient for {name}", atol=1e-4)
    return (
        "A softmax over nothing is 0/0, and one NaN in a gradient spoils every weight in a single step. That's why "
        "`attention` demands a mask with at least one True in each row."
    )


def strictly_before(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention to the tokens before each one, (B, T, hs); zeros for the first."""
    mask = causal_mask(q.shape[1]).tril(-1)
    mask[0, 0] = True
    out, _ = attention(q, k, v, mask)
    return torch.cat([torch.zeros_like(out[:, :1]), out[:, 1:]], dim=1)


def gradients(function: Callable) -> tuple[torch.Tensor | None, ...]:
    """Gradients of a weighted sum of the outputs by q, k and v, for the same random ones every time."""
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(2, 5, 4, generator=generator, requires_grad=True) for _ in range(3)]
    out = function(*given)
    if not out.requires_grad:
        return None, None, None
    weights = torch.arange(out.numel()).view(out.shape) / out.numel()
    return torch.autograd.grad((out * weights).sum(), given, allow_unused=True)


@exercise("05.3", Callable, "a function from a Head to a matrix (C, C)")
def one_matrix(answer: Callable) -> str:
    for C, hs in ((32, 16), (12, 3), (8, 8)):
        head = Head(C, hs, 4)
        query, key = head.query.weight.detach(), head.key.weight.detach()  # (hs, C) each
        M = ask(answer, head)
        if isinstance(M, torch.Tensor) and tuple(M.shape) == (hs, hs) != (C, C):
            raise Wrong(
                f"M is (hs, hs), {(hs, hs)}: there you multiplied over the channels. Between x and x transposed "
                f"there is room for a (C, C) matrix, {(C, C)}."
            )
        right = query.T @ key / hs**0.5
        expect(
            M,
            right,
            f"M for C={C}, hs={hs}",
            {
                "This is M transposed: with it, token s asks and token t is asked.": right.T,
                "The scaling is missing: the scores are divided by the square root of hs.": query.T @ key,
                "M is scaled by C; it's the head size whose square root divides the scores.": (
                    query.T @ key / C**0.5
                ),
                "M is divided by hs; the scores are divided by its square root.": query.T @ key / hs,
                "The weights aren't multiplied over the head's channels: which one has to be transposed?": (
                    query @ key.T / hs**0.5
                ),
            },
        )
    return (
        "A head's scores are x M x^T. M isn't symmetric: what t looks for in s isn't what s looks for in t. And its "
        "rank is hs at most: a small head compares two tokens by few of their features."
    )


@exercise(
    "05.4", Callable, "a function of q (B, hs) and an iterator of keys and values, to the output (B, hs)"
)
def one_pass(answer: Callable) -> str:
    for B, n, hs, size in ((2, 9, 4, 1.0), (3, 1, 8, 1.0), (2, 40, 4, 1.0), (2, 12, 4, 100.0)):
        q, k, v = size * torch.randn(B, hs), size * torch.randn(n, B, hs), torch.randn(n, B, hs)
        scores = (q * k).sum(-1) / hs**0.5  # (n, B)
        with Watched() as seen:
            out = answer(q.clone(), one_at_a_time(k, v))
        if size > 1 and isinstance(out, torch.Tensor) and not out.isfinite().all():
            raise Wrong(
                f"With scores up to {scores.max().item():,.0f} the output isn't finite: exp overflows above 88, "
                "or all weights become 0. Subtract the largest score so far from each."
            )
        right = weighted(scores, v)
        relative = (scores - scores.max(0).values).exp()
        expect(
            out,
            right,
            f"The output for {n} keys, with scores up to {scores.max().item():.1f}",
            {
                "The scores aren't divided by the square root of hs.": weighted(scores * hs**0.5, v),
                "The weighted sum isn't divided by the sum of the weights at the end.": (
                    (relative[..., None] * v).sum(0)
                ),
                "When a new score raises the maximum, the sum of the weights has to be rescaled, too.": (
                    streamed(scores, v, rescaling=("out",))
                ),
                "When a new score raises the maximum, the weighted sum of the values has to be rescaled, too.": (
                    streamed(scores, v, rescaling=("total",))
                ),
                "When a new score raises the maximum, both sums were made with the old one; rescale them.": (
                    streamed(scores, v, rescaling=())
                ),
                "All weights are equal; the scores have no effect yet.": v.mean(0),
                "This is the last value alone: the sums begin again at every key.": v[-1],
            },
            atol=1e-4,
        )
        if n > hs * hs and seen.largest >= n * B:  # one key takes hs * hs numbers in each row at most
            raise Wrong(
                f"The output is right, but a tensor on the way has {seen.largest} numbers, room for something of each "
                f"of the {n} keys. Keep running sums instead; they don't grow."
            )
    return (
        "Three running numbers replace a row of scores of any length, and exp never overflows. FlashAttention does this "
        "with blocks of keys that fit into a GPU's fast memory, and never writes wei at all."
    )


def one_at_a_time(k: torch.Tensor, v: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The keys and values (n, B, hs), a pair at a time; Wrong if earlier pairs are still held."""
    given: list[weakref.ref] = []
    for key, value in zip(k, v, strict=True):
        held = sum(each() is not None for each in given)
        if held > 4:  # the current pair, and the one before it
            raise Wrong(
                f"You still hold {held} of the keys and values; use each pair when it comes, and let it go."
            )
        pair = key.clone(), value.clone()
        given += map(weakref.ref, pair)
        yield pair
        del pair


def weighted(scores: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Values (n, B, hs) averaged by a softmax over their scores (n, B): (B, hs)."""
    return (scores.softmax(0)[..., None] * v).sum(0)


def streamed(scores: torch.Tensor, v: torch.Tensor, rescaling: tuple[str, ...]) -> torch.Tensor:
    """The same in one pass, with the forgetful mistakes: only the sums that are named are rescaled."""
    highest = scores[0]
    total, out = torch.zeros_like(highest), torch.zeros_like(v[0])
    for score, value in zip(scores, v, strict=True):
        new = torch.maximum(highest, score)
        factor, weight = (highest - new).exp(), (score - new).exp()
        total = total * (factor if "total" in rescaling else 1) + weight
        out = out * (factor[:, None] if "out" in rescaling else 1) + weight[:, None] * value
        highest = new
    return out / total[:, None]
