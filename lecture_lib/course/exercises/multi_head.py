"""Checks of the exercises of 07_multi_head."""

from collections.abc import Callable
from numbers import Real

import torch
from torch import nn

from lecture_lib.multi_head import MultiHeadAttention, MultiHeadModel
from lecture_lib.self_attention import causal_mask

from .asking import Wrong, ask, expect
from .checking import exercise
from .watching import Watched, refuse_loop, watched

EMBEDDINGS = 65 * 32 + 8 * 32  # of characters and of positions
LARGE_HEADS = 4 * 3 * 32 * 32


@exercise("07.1", Real, "a whole number")
def large_heads(answer: float) -> str:
    lm_head = 128 * 65 + 65
    expect(
        answer,
        EMBEDDINGS + LARGE_HEADS + lm_head,
        "The parameters of the whole model",
        {
            "lm_head now has 128 inputs, 32 from each head, not 32.": EMBEDDINGS + LARGE_HEADS + 32 * 65 + 65,
            "That's with one head of 32; there are four.": EMBEDDINGS + LARGE_HEADS // 4 + lm_head,
            "That's the model of this chapter; its four heads have 8 channels, not 32.": 7_553,
            "The bias of lm_head is missing, 65 numbers.": EMBEDDINGS + LARGE_HEADS + lm_head - 65,
            "The embeddings of the positions are missing.": 65 * 32 + LARGE_HEADS + lm_head,
            "The embeddings are missing, those of the characters and those of the positions.": (
                LARGE_HEADS + lm_head
            ),
            "That's one matrix for each head; a head has three, query, key and value.": (
                EMBEDDINGS + LARGE_HEADS // 3 + lm_head
            ),
        },
        atol=0.5,
    )
    return "Three times as many as with four heads of 8: more heads are free only if they share out the channels."


@exercise("07.2", Callable, "a function from (n_head, B, T, hs) and lm_head to (n_head, B, T, vocab_size)")
def shares(answer: Callable) -> str:
    for n_head, hs, vocab_size in ((4, 8, 13), (2, 3, 5), (3, 4, 12)):
        outs, lm_head = torch.randn(n_head, 2, 3, hs), nn.Linear(n_head * hs, vocab_size)
        weight, bias = lm_head.weight.detach(), lm_head.bias.detach()
        right = each_times(outs, weight.split(hs, dim=1))
        logits = right.sum(0) + bias
        expect(
            ask(answer, outs, lm_head),
            right,
            f"The shares of {n_head} heads of {hs}",
            {
                f"Each share has the whole bias in it, so that their sum has it {n_head} times; leave it out.": (
                    right + bias
                ),
                "A part of the bias is in each share; it comes from no head, so leave it out.": (
                    right + bias / n_head
                ),
                "All heads have the same share here, the logits divided by n_head; which columns of the weight "
                "meet which head?": logits.expand_as(right) / n_head,
                "You gave head i every n_head-th column; its channels lie next to each other.": (
                    each_times(outs, [weight[:, i::n_head] for i in range(n_head)])
                ),
                "view moves no numbers, so it cuts the weight along its rows; the columns have to be cut.": (
                    each_times(outs, weight.reshape(n_head, vocab_size, hs))
                ),
            },
        )
    return (
        "To concatenate and multiply is to multiply each and add: every head has its own matrix in lm_head and adds its "
        "opinion to the logits. No head can react to what another one says; that takes what the next chapter adds."
    )


def each_times(outs: torch.Tensor, weights) -> torch.Tensor:
    """Each head's outputs (B, T, hs) times a matrix (vocab_size, hs) of its own."""
    return torch.stack([out @ weight.T for out, weight in zip(outs, weights, strict=True)])


@exercise("07.3", type, "a class that is made with n_embd, n_head and block_size, as MultiHeadAttention is")
def parallel_heads(answer: type) -> str:
    for (B, T, n_head, hs), block_size in (((2, 7, 3, 5), 7), ((3, 4, 2, 6), 9), ((1, 1, 4, 2), 3)):
        multi, x = MultiHeadAttention(n_head * hs, n_head, block_size), torch.randn(B, T, n_head * hs)
        layer = answer(n_head * hs, n_head, block_size)
        put_weights(multi, layer)
        with Watched() as seen, torch.no_grad():
            out = ask(layer, x)
        stacked = [
            torch.cat([getattr(head, name)(x) for head in multi.heads], dim=-1).detach()
            for name in ("query", "key", "value")
        ]
        known = {sentence: all_at_once(*stacked, n_head, **how) for sentence, how in PARALLEL_SLIPS.items()}
        expect(out, multi(x), f"For {n_head} heads of {hs} and x of shape {tuple(x.shape)}", known)
        in_parallel = {(B, n_head, T, hs), (B * n_head, T, hs)}
        if not seen.shapes & in_parallel:
            raise Wrong(
                f"The numbers are right, but no tensor on the way has shape (B, n_head, T, hs), {(B, n_head, T, hs)}: "
                "the heads still take turns. Split the product of the large layer, and let @ do all heads at once."
            )
    few, many = (watched(answer(12, n_head, 4), torch.randn(2, 4, 12)) for n_head in (2, 6))
    refuse_loop(few, many, "more heads take", "the heads still take turns")
    return (
        "For @ and softmax a head is one more batch dimension. Three large products take the place of many small ones, "
        "which is how nanoGPT and torch's own layer do it."
    )


def put_weights(multi: MultiHeadAttention, layer: nn.Module) -> None:
    """Give a learner's layer the weights of the heads, stacked; Wrong if it has no place for them."""
    if not isinstance(layer, nn.Module):
        raise Wrong("Your class isn't a module; let it inherit from nn.Module.")
    for name in ("key", "query", "value"):
        stacked = torch.cat([getattr(head, name).weight for head in multi.heads]).detach()
        own = getattr(layer, name, None)
        if not isinstance(own, nn.Linear) or own.weight.shape != stacked.shape or own.bias is not None:
            raise Wrong(
                f"Your class made with n_embd={len(stacked)} has {name} = {own}; expected "
                f"nn.Linear({len(stacked)}, {len(stacked)}, bias=False)."
            )
        own.weight.data.copy_(stacked)


def interleaved(y: torch.Tensor, n_head: int) -> torch.Tensor:
    """(B, T, C) cut into heads of every n_head-th channel, (B, n_head, T, hs)."""
    return y.view(*y.shape[:2], -1, n_head).permute(0, 3, 1, 2)


def viewed(y: torch.Tensor, n_head: int) -> torch.Tensor:
    """(B, T, C) viewed as (B, n_head, T, hs), which mixes positions and heads."""
    return y.view(len(y), n_head, y.shape[1], -1)


def reshaped(out: torch.Tensor) -> torch.Tensor:
    """(B, n_head, T, hs) taken for (B, T, C) without a transpose."""
    return out.reshape(len(out), out.shape[2], -1)


PARALLEL_SLIPS = {
    "view alone doesn't separate the heads: it moves no number, so (B, T, C) viewed as (B, n_head, T, hs) mixes "
    "positions and heads. View as (B, T, n_head, hs), then transpose.": {
        "split": viewed,
        "join": reshaped,
    },
    "The heads are computed right, but put together wrong: transpose back to (B, T, n_head, hs) before the last two "
    "dimensions become one.": {"join": reshaped},
    "Head i takes every n_head-th channel; its hs channels lie next to each other, so n_head comes before hs.": {
        "split": interleaved
    },
    "The scores are divided by the square root of C; each head has only hs channels.": {"scale": "C"},
    "The scores aren't scaled: they are divided by the square root of hs.": {"scale": "nothing"},
    "The future isn't masked: token 0 already knows the rest.": {"causal": False},
    "The softmax runs over the queries; each query's weights over the keys, the last dimension, sum to 1.": {
        "over": -2
    },
}


def all_at_once(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    n_head: int,
    split: Callable = lambda y, n_head: y.view(*y.shape[:2], n_head, -1).transpose(1, 2),
    join: Callable = lambda out: out.transpose(1, 2).flatten(2),
    scale: str = "hs",
    causal: bool = True,
    over: int = -1,
) -> torch.Tensor:
    """Causal attention of all heads, (B, T, C) -> (B, T, C), with one or another step done wrong."""
    T, C = q.shape[1:]
    q, k, v = (split(part, n_head) for part in (q, k, v))
    divisor = {"hs": q.shape[-1], "C": C, "nothing": 1}[scale] ** 0.5
    scores = q @ k.transpose(-2, -1) / divisor
    if causal:
        scores = scores.masked_fill(~causal_mask(T), float("-inf"))
    return join(scores.softmax(over).nan_to_num() @ v)


@exercise("07.4", Callable, "a function that takes a MultiHeadModel, changes it and returns it")
def twins(answer: Callable) -> str:
    for n_head, hs in ((3, 4), (2, 5)):
        model = MultiHeadModel(vocab_size=11, block_size=6, n_embd=n_head * hs, n_head=n_head)
        twin = ask(answer, model)
        if not isinstance(twin, MultiHeadModel) or len(twin.body.heads) != n_head:
            raise Wrong(f"Expected the model with its {n_head} heads back; got {type(twin).__name__}.")
        check_start(model.body.heads[0], twin.body.heads)
        check_training(twin.double())
    return (
        "Heads are told apart only by what reads them. Equal heads alone part at the first step, since the columns of "
        "lm_head differ. Without that difference they stay one head for ever: it takes randomness to have several."
    )


def check_start(first: nn.Module, heads: nn.ModuleList) -> None:
    """Wrong unless the heads are modules of their own with the matrices of `first`."""
    if len({parameter.data_ptr() for parameter in heads.parameters()}) < 3 * len(heads):
        raise Wrong(
            "The heads are one and the same module, or share matrices; copy head 0's numbers instead."
        )
    for i, head in enumerate(heads):
        for name in ("key", "query", "value"):
            if not torch.equal(getattr(head, name).weight, getattr(first, name).weight):
                raise Wrong(
                    f"Head {i} doesn't start with the {name} matrix that head 0 had"
                    f"{'; head 0 itself must stay as it is' if i == 0 else ''}."
                )


def check_training(model: MultiHeadModel, steps: int = 5) -> None:
    """Wrong unless the heads learn in some steps of training and remain equal."""
    heads = model.body.heads
    start = heads[0].value.weight.detach().clone()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(1, steps + 1):
        xb, yb = torch.randint(11, (2, 4, 6)).unbind(0)
        optimizer.zero_grad()
        loss = model(xb, yb)[1]
        if loss.requires_grad:
            loss.backward()
        optimizer.step()
        matrices = [torch.cat([*head.parameters()]) for head in heads]
        apart = max((matrix - matrices[0]).abs().max().item() for matrix in matrices)
        if apart > 1e-3:
            raise Wrong(
                f"The heads begin equal, but at step {step} of training they are up to {apart:.3f} apart. Their gradients "
                "come back through lm_head: which of its weights does each head meet?"
            )
    if torch.equal(heads[0].value.weight, start):
        raise Wrong("The heads don't part because they don't learn: after five steps head 0 is as it was.")
