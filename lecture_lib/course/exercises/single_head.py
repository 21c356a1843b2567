"""Checks of the exercises of 06_single_head."""

import math
from collections.abc import Callable

import torch
from torch.nn import functional as F

from lecture_lib.generation import nucleus
from lecture_lib.self_attention import causal_mask
from lecture_lib.single_head import SingleHeadModel

from .asking import Wrong, ask, expect
from .checking import exercise


@exercise("06.1", Callable, "a function from logits (B, vocab_size) and top_p to B whole numbers")
def candidates(answer: Callable) -> str:
    for vocab_size, top_p in ((20, 0.9), (20, 0.5), (7, 0.05), (7, 1.0)):
        logits = 2 * torch.randn(4, vocab_size)
        kept = nucleus(logits, top_p).isfinite().sum(-1)
        expect(
            ask(answer, logits, top_p),
            kept,
            f"The number of tokens in each of 4 rows, for top_p={top_p}",
            {
                "You count the tokens that are left out.": vocab_size - kept,
                "The token that reaches top_p stays in; each of your rows has one too few.": kept - 1,
                "You count the tokens that are as likely as top_p by themselves; it's the share of all of them "
                "together that has to reach top_p.": (F.softmax(logits, dim=-1) >= top_p).sum(-1),
                "These are all tokens; nothing has been left out yet.": torch.full((4,), vocab_size),
            },
        )
    return "A nucleus is as small as the model is sure. Top-k would have kept the same number in each row."


@exercise("06.2", Callable, "a function from weights (N, T, T) to T means, one for each distance")
def by_distance(answer: Callable) -> str:
    for N, T in ((5, 6), (2, 9), (3, 1)):
        scores = torch.randn(N, T, T).masked_fill(~causal_mask(T), float("-inf"))
        wei = scores.softmax(-1)
        diagonals = [wei.diagonal(-d, dim1=1, dim2=2) for d in range(T)]  # (N, T - d) each
        right = torch.stack([weights.mean() for weights in diagonals])
        expect(
            ask(answer, wei),
            right,
            f"The means for wei of shape {(N, T, T)}",
            {
                "That's the last position of each chunk only, as in section 5; take the others, too.": (
                    wei[:, -1].mean(0).flip(0)
                ),
                "You divide every sum by T, but only T - d positions have a character d back.": (
                    torch.stack([weights.sum() / (N * T) for weights in diagonals])
                ),
                "These are sums; divide each by the number of weights in it.": (
                    torch.stack([weights.sum() for weights in diagonals])
                ),
                "Your diagonals lie above the main one, where the future is masked; the past lies below.": (
                    torch.stack([wei.diagonal(d, dim1=1, dim2=2).mean() for d in range(T)])
                ),
                "The order is reversed: distance 0, the character itself, comes first.": right.flip(0),
                "That's the mean weight on each position of the chunk, not at each distance.": wei.mean(
                    (0, 1)
                ),
            },
        )
    return (
        "These means tell at a glance a head that looks at its left neighbour from one that stays on itself. They need not "
        "sum to 1: each is taken over other positions."
    )


def cuts(logits: torch.Tensor, min_p: float) -> dict[str, torch.Tensor]:
    """Logits (B, vocab_size) cut as min-p cuts them, and as the usual mistakes do."""
    probs, highest = F.softmax(logits, dim=-1), logits.max(-1, keepdim=True).values
    out = highest + math.log(min_p) > logits + 1e-6  # those that are left out
    left_out = {
        "right": out,
        "not relative": probs < min_p,
        "by logits": logits < min_p * highest,
        "one bar for all rows": probs < min_p * probs.max(),
        "the others": ~out,
    }
    found = {name: logits.masked_fill(mask, float("-inf")) for name, mask in left_out.items()}
    return found | {
        "zeros": logits.masked_fill(out, 0.0),
        "probabilities": F.softmax(found["right"], dim=-1),
        "probabilities with -inf": probs.masked_fill(out, float("-inf")),
        "probabilities with 0": probs.masked_fill(out, 0.0),
    }


@exercise("06.3", Callable, "a function from logits (B, vocab_size) and min_p to logits with -inf")
def likely_enough(answer: Callable) -> str:
    for min_p in (0.1, 0.5, 0.02, 1.0):
        logits = 2 * torch.randn(4, 12) - 1
        cut = cuts(logits, min_p)
        expect(
            ask(answer, logits, min_p),
            cut["right"],
            f"The logits for min_p={min_p}",
            {
                "You keep what has a probability of min_p or more; a token has to be min_p times as likely as the "
                "likeliest of its row.": cut["not relative"],
                "You multiply logits by min_p, but it's the probabilities whose ratio counts.": cut[
                    "by logits"
                ],
                "Every row has a likeliest token of its own; you compare with the likeliest of the whole batch.": (
                    cut["one bar for all rows"]
                ),
                "The right tokens are left out, but with 0: for a softmax that's a score like any other. Use -inf.": (
                    cut["zeros"]
                ),
                "You leave out the likely tokens and keep the others.": cut["the others"],
                "These are probabilities; return the logits of the tokens that stay.": cut["probabilities"],
                "These are probabilities, with -inf; return the logits of the tokens that stay.": (
                    cut["probabilities with -inf"]
                ),
            },
        )
    return "No sort is needed, and the likeliest token always stays. That's why many programs offer min-p beside top-p."


@exercise(
    "06.4", Callable, "a function from a SingleHeadModel, ids (B, T) and a number of tokens to longer ids"
)
def generate_once(answer: Callable) -> str:
    for B, T, new, block_size in ((4, 3, 7, 10), (2, 1, 5, 9), (1, 6, 1, 7)):
        model, counted = counting_model(block_size)
        idx = torch.randint(13, (B, T))
        given = idx.clone()
        text = answer(model, given, new)
        if not torch.equal(idx, given):
            raise Wrong("Your function changes idx in place, and the caller still needs it; use torch.cat.")
        taken = {name: numbers // B for name, numbers in counted.items()}
        expect(
            text,
            model.generate(idx, new, top_k=1),
            f"{new} tokens after a prompt of {T}, in {B} rows",
            {
                "Your new tokens all have the embedding of position 0: `model.embed` of a single token can't know "
                "where it stands.": written(model, idx, new, position=lambda T: 0),
                "Your new tokens have the embedding of the position before theirs.": (
                    written(model, idx, new, position=lambda T: T - 2)
                ),
                "The scores aren't divided by the square root of hs.": written(model, idx, new, scaled=False),
                "Only the prompt is attended to: the keys and values of new tokens have to be appended.": (
                    written(model, idx, new, append=False)
                ),
                "It's always the query of the prompt's last token that asks; each new token asks for itself.": (
                    written(model, idx, new, own_query=False)
                ),
            },
        )
        for name, tokens in taken.items():
            if tokens > T + new:
                raise Wrong(
                    f"The text is right, but model.body.{name} was computed for {tokens} tokens in each row, and the "
                    f"text has only {T + new}. Keep what you have, and compute it for the new token alone."
                )
            if tokens < T + new - 1:
                raise Wrong(
                    f"The text is right, but model.body.{name} was called for {tokens} tokens in each row of "
                    f"{T + new}. Call the layer itself, once for each token, so that the check can count."
                )
    return (
        "This is a KV cache: a step costs as much as one token, not as the whole text. Beyond block_size it ends, because "
        "the crop gives every token another position, and with it another key."
    )


def counting_model(block_size: int) -> tuple[SingleHeadModel, dict[str, int]]:
    """A model with lively weights, and for how many tokens its keys and values have been computed."""
    model = SingleHeadModel(vocab_size=13, block_size=block_size, n_embd=16)
    counted = {"key": 0, "value": 0}
    for parameter in model.parameters():
        parameter.data *= 3

    def count(name: str) -> Callable:
        def hook(layer, given, out):
            counted[name] += out.numel() // out.shape[-1]

        return hook

    for name in counted:
        getattr(model.body, name).register_forward_hook(count(name))
    return model, counted


@torch.no_grad()
def written(
    model: SingleHeadModel,
    idx: torch.Tensor,
    new: int,
    position: Callable = lambda T: T - 1,
    scaled: bool = True,
    append: bool = True,
    own_query: bool = True,
) -> torch.Tensor:
    """The likeliest text with kept keys and values, with one or another step done wrong."""
    head, x = model.body, model.embed(idx)
    keys, values, query = head.key(x), head.value(x), head.query(x[:, -1:])
    for _ in range(new):
        scores = query @ keys.transpose(-2, -1) / (query.shape[-1] ** 0.5 if scaled else 1)
        idx = torch.cat([idx, model.lm_head(scores.softmax(-1) @ values).argmax(-1)], dim=1)
        place = model.position_embedding_table.weight[position(idx.shape[1])]
        x = model.token_embedding_table(idx[:, -1:]) + place
        query = head.query(x) if own_query else query
        if append:
            keys, values = torch.cat([keys, head.key(x)], dim=1), torch.cat([values, head.value(x)], dim=1)
    return idx
