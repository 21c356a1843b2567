"""Checks of the exercises of 13c_trainer."""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from lecture_lib.recipe import warmup_cosine

from .asking import Wrong, ask, expect, number
from .checking import exercise


@exercise("13c.1", Callable, "a function of a list of rates and the decay that gives a share")
def what_decay_leaves(answer: Callable) -> str:
    for rates, decay in (([0.5, 1.0, 0.25], 0.4), ([0.2] * 5, 0.1), ([1.0], 0.3), ([0.1, 0.9], 0.5)):
        left = math.prod(1 - rate * decay for rate in rates)
        total = decay * sum(rates)
        expect(
            ask(answer, rates, decay),
            left,
            f"The share left for rates={rates}, weight_decay={decay}",
            {
                "This is what is lost; expected what is left.": 1 - left,
                "You add up what the steps take; each takes its share of what is left by then, so multiply.": (
                    1 - total
                ),
                "That's the sum of what the steps take, each from a whole weight.": total,
                "exp(-sum) is close for small rates; a step multiplies by 1 - rate * decay exactly.": (
                    math.exp(-total)
                ),
                "The decay is missing: a step takes rate * decay of the weight.": (
                    math.prod(1 - rate for rate in rates)
                ),
                "Your steps all have the last rate.": (1 - rates[-1] * decay) ** len(rates),
                "Your steps all have the first rate.": (1 - rates[0] * decay) ** len(rates),
            },
        )
    rates = [warmup_cosine(step, 6e-3, 6e-4, 40, 400) for step in range(400)]
    left = math.prod(1 - rate * 0.1 for rate in rates)
    return (
        f"With section 7's settings {left:.2f} of a weight would be left after 400 steps, if its gradient did nothing: "
        "no wonder that the run without decay ends just as low."
    )


@exercise("13c.2", Callable, "a function of step, learning_rate and three numbers of steps that gives a rate")
def up_along_down(answer: Callable) -> str:
    for rate, warm, cool, steps in ((1.0, 4, 5, 20), (0.5, 1, 1, 3), (2.0, 6, 4, 10), (3.0, 3, 8, 15)):
        every = range(steps)
        said = torch.tensor(
            [
                number(ask(answer, step, rate, warm, cool, steps), f"The rate of step {step}")
                for step in every
            ],
            dtype=torch.float64,
        )
        shares = lambda up, down, every=every, rate=rate: torch.tensor(  # noqa: E731
            [rate * max(0.0, min(up(step), 1.0, down(step))) for step in every], dtype=torch.float64
        )
        up, down = (lambda s, n=warm: (s + 1) / n), (lambda s, n=steps, c=cool: (n - s) / c)
        expect(
            said,
            shares(up, down),
            f"The rates of steps 0 to {steps - 1} for learning_rate={rate}, warmup_iters={warm}, "
            f"cooldown_iters={cool}, max_iters={steps}",
            {
                "Your step 0 has a rate of 0 and the highest comes a step late; step 0 is the first on the way up.": (
                    shares(lambda s, n=warm: s / n, down)
                ),
                "Your last step has a rate of 0; it should have learning_rate / cooldown_iters.": (
                    shares(up, lambda s, n=steps, c=cool: (n - 1 - s) / c)
                ),
                "Your way down begins a step late: the first of the cooldown_iters steps is the last with learning_rate.": (
                    shares(up, lambda s, n=steps, c=cool: (n + 1 - s) / c)
                ),
                "The way down is missing in yours.": shares(up, lambda s: 1.0),
                "The way up is missing in yours.": shares(lambda s: 1.0, down),
                "Up takes warmup_iters steps, and down cooldown_iters; you have swapped them.": (
                    shares(lambda s, n=cool: (s + 1) / n, lambda s, n=steps, c=warm: (n - s) / c)
                ),
                "These are shares of the highest rate; multiply by learning_rate.": shares(up, down) / rate,
                "Your way down begins at the end of the warm-up; the rate should stay in between.": (
                    shares(up, lambda s, n=steps, w=warm: (n - s) / (n - w + 1))
                ),
            },
            atol=1e-9,
        )
    return (
        "All corners are where they belong. One line does it, without a branch: the smallest of three rates."
    )


@exercise("13c.3", Callable, "a function of a model and pieces that gives the gradient as one vector")
def unequal_pieces(answer: Callable) -> str:
    nothing = -100
    batches = (
        ([[1, 2, 3], [4, 0, 1]], [[2, 3, 4], [0, 1, 2]], (1, 1)),
        ([[1, 2], [3, 4], [0, 1], [2, 2]], [[2, 3], [4, 0], [nothing, 1], [2, 4]], (3, 1)),
        (
            [[1, 2], [3, 4], [0, 1], [2, 2]],
            [[2, nothing], [4, 0], [nothing, nothing], [nothing, 4]],
            (2, 1, 1),
        ),
    )
    for inputs, targets, sizes in batches:
        x, y = torch.tensor(inputs), torch.tensor(targets)
        pieces = tuple(map(narrowed, x.split(sizes), y.split(sizes)))
        model = TinyModel()
        before = torch.ones_like(gradient_of(model, x, y))
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        counts = [(part != nothing).sum().item() for _, part in pieces]
        each = [gradient_of(model, *piece) for piece, n in zip(pieces, counts, strict=True) if n]
        by_rows = [len(part) / len(x) for (_, part), n in zip(pieces, counts, strict=True) if n]
        mean_of_means = sum(each) / len(pieces)
        right = gradient_of(model, x, y)
        said = ask(lambda pieces, model=model: answer(model, pieces), pieces)  # a copy would forget gradients
        if isinstance(said, torch.Tensor) and said.isnan().any():
            raise Wrong(
                "Your gradient is NaN: one of the pieces has no token that counts, and its mean loss is 0 / 0. "
                "Leave such a piece out; 0 times NaN is NaN."
            )
        expect(
            said,
            right,
            f"The gradient for pieces with {' and '.join(map(str, counts))} counted tokens",
            {
                "All pieces have the same weight in yours; weigh each by its number of counted tokens.": mean_of_means,
                "The pieces' gradients are added up; each needs its share of the counted tokens as weight.": (
                    sum(each)
                ),
                "You weigh pieces by rows, or by tokens that don't count either; only the counted ones matter.": (
                    sum(weight * part for weight, part in zip(by_rows, each, strict=True))
                ),
                "You add to the gradients that were there before; forget them first.": right + before,
                "This is the gradient of the sum over the tokens; divide by how many count.": (
                    right * sum(counts)
                ),
                "Only the last piece is in your gradient: forget gradients once, before the first piece.": (
                    each[-1] * counts[-1] / sum(counts)
                ),
            },
            atol=1e-6,
        )
    return "The pieces' sizes don't matter any more. Mean of means and mean of all differ as soon as they do."


def narrowed(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A piece without the columns at its end in which no target counts; one column is kept at least."""
    counted = (y != -100).any(dim=0).nonzero()
    width = int(counted[-1]) + 1 if len(counted) else 1
    return x[:, :width], y[:, :width]


class TinyModel(nn.Module):
    """A bigram model of five tokens with nanoGPT's interface: forward(idx, targets) -> logits, loss."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 5)

    def forward(self, idx: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.table(idx)  # (B, T, vocab_size)
        counted = (targets != -100).flatten()  # (B * T,)
        losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten().clamp(min=0), reduction="none")
        return logits, (losses * counted).sum() / counted.sum()


def gradient_of(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The gradient of the loss on one batch, as one vector; what is in `p.grad` stays as it is."""
    return torch.cat([g.flatten() for g in torch.autograd.grad(model(x, y)[1], list(model.parameters()))])


@exercise("13c.4", type, "a class whose objects have scale and step(gradients, max_norm)")
def sixteen_bits(answer: type) -> str:
    gradients_as_expected(answer)
    for broken in (torch.tensor([1.0, math.inf]), torch.tensor([math.nan])):
        if ask(answer(2.0, 3).step, (torch.ones(2), broken), 1.0) is not None:
            raise Wrong(f"For a gradient of {broken.tolist()}, expected None: the step must be skipped.")
    in_a_row = "The count of good steps has to begin anew after a skipped one: they must be in a row."
    anew = "The count of good steps has to begin anew when the scale has doubled."
    sequences = (
        (
            "ggg",
            (8.0, 4),
            8.0,
            {"The scale doubles too early: after `patience` good steps, not before.": 16.0},
        ),
        ("gg", (8.0, 2), 16.0, {"The scale hasn't doubled after `patience` good steps in a row.": 8.0}),
        (
            "b",
            (8.0, 2),
            4.0,
            {"A skipped step has to halve the scale.": 8.0, "You double where you should halve.": 16.0},
        ),
        ("ggg", (1.0, 2), 2.0, {anew: 4.0}),
        ("gggg", (1.0, 2), 4.0, {anew: 2.0}),
        ("gbg", (8.0, 2), 4.0, {in_a_row: 8.0}),
        ("bbg", (8.0, 1), 4.0, {}),
    )
    for steps, (scale, patience), expected, slips in sequences:
        scaler = answer(scale, patience)
        for step in steps:
            ask(scaler.step, (torch.tensor([1.0, math.inf if step == "b" else 2.0]),), 1.0)
        told = ", ".join({"g": "good", "b": "bad"}[step] for step in steps)
        expect(
            scaler.scale, expected, f"From {scale:g} with patience={patience}, steps {told}: the scale", slips
        )
    return (
        "Unscale, look, clip. A run in float16 begins with a scale that is too large on purpose and skips its "
        "first steps; with bfloat16's range there is nothing to scale, which is why ours leaves it out."
    )


def gradients_as_expected(answer: type) -> None:
    """Wrong unless a new scaler's first step unscales and clips."""
    raw = (torch.tensor([[3.0, -4.0], [0.0, 12.0]]), torch.tensor([2.0, 84.0]))
    whole = joined(raw)  # of length 85
    for scale, max_norm in ((16.0, 1.0), (1024.0, 2.0), (4.0, 50.0), (8.0, 1000.0)):
        said = ask(answer(scale, 1).step, tuple(scale * gradient for gradient in raw), max_norm)
        if not isinstance(said, tuple | list) or [g.shape for g in said] != [g.shape for g in raw]:
            raise Wrong("For two finite gradients, expected a tuple of two gradients of the same shapes.")
        expect(
            joined(said),
            clipped(whole, max_norm),
            f"The gradients, as one vector, for scale={scale:g} and max_norm={max_norm:g}",
            {
                "You clip before you unscale, so the gradients come out too short: divide by the scale first.": (
                    clipped(scale * whole, max_norm) / scale
                ),
                "Clipped, but never divided by the scale: short gradients come out too long.": (
                    clipped(scale * whole, max_norm)
                ),
                "You divide by the scale after it has doubled; these gradients were made with the one before.": (
                    clipped(whole / 2, max_norm)
                ),
                "The gradients aren't clipped.": whole,
                "Each tensor is clipped by itself; the length is that of all together as one vector.": (
                    joined([clipped(gradient, max_norm) for gradient in raw])
                ),
                "Each number is cut by itself; that bends the gradient.": whole.clamp(-max_norm, max_norm),
                "Your gradients always have the length max_norm; short ones should stay short.": (
                    whole * max_norm / whole.norm()
                ),
            },
            atol=1e-3,
        )


def joined(gradients: list[torch.Tensor] | tuple[torch.Tensor, ...]) -> torch.Tensor:
    """All gradients as one vector."""
    return torch.cat([gradient.flatten() for gradient in gradients])


def clipped(values: torch.Tensor, max_norm: float) -> torch.Tensor:
    """The values, shortened to a length of max_norm if they are longer."""
    return values * min(1.0, max_norm / values.norm().item())
