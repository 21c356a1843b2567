"""Checks of the exercises of 10_layer_norm."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector

from lecture_lib.layer_norm import LayerNormModel
from lecture_lib.residual import ResidualModel
from lecture_lib.self_attention import attention, causal_mask

from .asking import Wrong, ask, expect, number
from .checking import exercise

EPS = 1e-5


@exercise(
    "10.1", Callable, "a function from (..., C) to (..., C), each token divided by its root mean square"
)
def root_mean_square(answer: Callable) -> str:
    for shape in ((4, 6), (2, 3, 8)):
        x = 1 + 2 * torch.randn(shape)
        square, centred = x**2, x - x.mean(dim=-1, keepdim=True)
        rms = (square.mean(dim=-1, keepdim=True) + EPS).sqrt()
        expect(
            ask(answer, x),
            x / rms,
            f"For random x of shape {shape}",
            {
                "This is LayerNorm: each token's mean is gone. RMSNorm leaves the mean where it is.": (
                    F.layer_norm(x, shape[-1:])
                ),
                "You divide by the right number, but the mean is still subtracted first.": centred / rms,
                "You divide by the standard deviation, which is measured from the mean; measure from 0.": (
                    x / (x.var(dim=-1, keepdim=True, unbiased=False) + EPS).sqrt()
                ),
                "You divide by the root of the sum of the squares; it should be the root of their mean.": (
                    x / (square.sum(dim=-1, keepdim=True) + EPS).sqrt()
                ),
                "You divide by the mean of the squares; the root is missing.": x / rms**2,
                "The mean runs over the rows (dim=0); a token's own channels are the last dimension.": (
                    x / (square.mean(dim=0) + EPS).sqrt()
                ),
                "All tokens share one mean; each should have its own, over its channels.": (
                    x / (square.mean() + EPS).sqrt()
                ),
            },
            atol=1e-4,
        )
    zeros = torch.zeros(2, 6)
    if not torch.equal(ask(answer, zeros).nan_to_num(1), zeros):
        raise Wrong("A token of zeros has to stay zeros; 0 / 0 is NaN, so add 1e-5 under the root.")
    return (
        "It's LayerNorm without the mean: one sum fewer to compute, and it still doesn't notice how loud its input "
        "is. Of section 3's checks, mean 0 and standard deviation 1 fail, x and 10 * x + 3 differ, and a constant "
        "vector no longer becomes 0."
    )


@exercise("10.2", Callable, "a function of a norm and a linear layer that gives a new nn.Linear")
def folded_norm(answer: Callable) -> str:
    for C, out in ((8, 8), (6, 9)):
        norm, linear, x = nn.LayerNorm(C), nn.Linear(C, out), 1 + 2 * torch.randn(4, C)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        folded = ask(into_a_new_layer(answer), norm, linear)
        plain = F.layer_norm(x, (C,))  # no gain, no shift
        W, b, gain, shift = linear.weight, linear.bias, norm.weight, norm.bias
        slips = {
            "The norm's shift is lost: it goes through the weights, too, and ends in the bias.": (
                W * gain,
                b,
            ),
            "The norm's gain is lost: it belongs in the weights.": (W, b + W @ shift),
            "The linear layer's own bias is lost.": (W * gain, W @ shift),
            "The shift goes through weights that already have the gain. The norm adds it after the gain.": (
                W * gain,
                b + W * gain @ shift,
            ),
        }
        if out == C:
            slips["The gain multiplies the rows of the weights, the outputs. Inputs are the columns."] = (
                W * gain[:, None],
                b + W @ shift,
            )
            slips["The shift is added to the bias as it is; it has to go through the weights first."] = (
                W * gain,
                b + shift,
            )
        with torch.no_grad():
            expect(
                folded(plain),
                linear(norm(x)),
                f"For a norm of {C} channels and a linear layer from {C} to {out}",
                {sentence: F.linear(plain, *wrong) for sentence, wrong in slips.items()},
                atol=1e-4,
            )
    return (
        "The gain and the shift before a linear layer add nothing that it couldn't compute itself. They are "
        "there for training, and a program that only runs a model may fold them away."
    )


def into_a_new_layer(answer: Callable) -> Callable:
    """The learner's function, which must return a new layer and leave those that it was given."""

    def fold(norm: nn.LayerNorm, linear: nn.Linear) -> nn.Linear:
        before = parameters_to_vector([*norm.parameters(), *linear.parameters()]).clone()
        folded = answer(norm, linear)
        after = parameters_to_vector([*norm.parameters(), *linear.parameters()])
        if folded is linear:
            raise Wrong(
                "You changed the layer that you were given; its model needs it. Make a new nn.Linear."
            )
        if not isinstance(folded, nn.Linear):
            raise Wrong(f"Expected a new nn.Linear, got {type(folded).__name__}.")
        if not torch.equal(before, after):
            raise Wrong(
                "The new layer isn't all: you changed the weights of the norm or the layer that you were given, too."
            )
        return folded

    return fold


@exercise(
    "10.3", Callable, "a function of model, idx, targets and n_layer that gives a list of n_layer numbers"
)
def gradient_of_each_block(answer: Callable) -> str:
    for make, n_layer in ((LayerNormModel, 3), (ResidualModel, 2)):
        model = make(11, 4, 8, 2, n_layer)
        idx, targets = torch.randint(11, (2, 6, 4))
        found = list(ask(answer, model, idx, targets, n_layer))
        if len(found) != n_layer:
            raise Wrong(f"Expected {n_layer} numbers, one for each block, got {len(found)}.")
        model(idx, targets)[1].backward()
        squares = [[(p.grad**2).sum() for p in block.parameters()] for block in model.body[:n_layer]]
        sums, lengths = [sum(each) for each in squares], [sum(each) ** 0.5 for each in squares]
        expect(
            torch.tensor([number(value, "The gradient of a block") for value in found]),
            torch.tensor(lengths),
            f"For a {make.__name__} of {n_layer} blocks",
            {
                "These are the squares of the lengths; the root is missing.": torch.tensor(sums),
                "You added the lengths of a block's weights. Lengths don't add up, their squares do.": (
                    torch.tensor([sum(square**0.5 for square in each) for each in squares])
                ),
                "These are means over each block's weights; the length is the root of a sum.": torch.tensor(
                    [
                        total / sum(p.numel() for p in block.parameters())
                        for total, block in zip(sums, model.body, strict=False)
                    ]
                ),
                "The blocks are in the wrong order: the first of model.body comes first.": torch.tensor(
                    lengths[::-1]
                ),
                "These are the lengths of the weights, not of their gradients.": torch.tensor(
                    [
                        sum((p.detach() ** 2).sum() for p in block.parameters()) ** 0.5
                        for block in model.body[:n_layer]
                    ]
                ),
            },
        )
    model.zero_grad()
    again = ask(lambda *given: (answer(*given), answer(*given))[1], model, idx, targets, n_layer)
    expect(
        torch.tensor([float(value) for value in again]),
        torch.tensor(lengths),
        "Called a second time",
        {
            "The second call gives twice as much: backward() adds to what is in .grad; empty it before.": (
                2 * torch.tensor(lengths)
            )
        },
    )
    return (
        "With torch's start, the blocks of a stack of 12 get gradients of similar length. Drawn by Xavier's "
        "rule, those of the model without norms are in the thousands at its output and around a hundred thousand at "
        "its input; with norms, in either order, they stay around 1 or below."
    )


@exercise("10.4", type, "a class that is made like Head and has its own `attend`")
def normalised_queries_and_keys(answer: type) -> str:
    C, hs, T = 12, 4, 5
    head, x = answer(C, hs, 8), torch.randn(2, T, C)
    with torch.no_grad():
        out, wei = head.attend(x)
        q, k, v, mask = head.query(x), head.key(x), head.value(x), causal_mask(T)
        size_one = lambda z: F.layer_norm(z, z.shape[-1:])  # noqa: E731
        over_positions = lambda z: F.layer_norm(z.mT, (T,)).mT  # noqa: E731
        right = attention(size_one(q), size_one(k), v, mask)[1]
        inside = size_one(x)
        weights = {
            "These are the weights of an ordinary head: queries and keys aren't normalised yet.": (q, k),
            "Only the queries are normalised; a long key still makes a large score.": (size_one(q), k),
            "Only the keys are normalised; a long query still makes large scores.": (q, size_one(k)),
            "You normalised over the positions; each query and key is a vector of its own, the last dim.": (
                over_positions(q),
                over_positions(k),
            ),
            "Queries and keys have length 1, so that no score exceeds 1/sqrt(hs); F.layer_norm makes them "
            "sqrt(hs) long.": (F.normalize(q, dim=-1), F.normalize(k, dim=-1)),
            "The scores aren't divided by sqrt(hs).": (hs**0.5 * size_one(q), size_one(k)),
            "You normalised x; queries and keys made from it may still grow with their weights.": (
                head.query(inside),
                head.key(inside),
            ),
        }
        slips = {sentence: attention(*pair, v, mask)[1] for sentence, pair in weights.items()}
        slips["Tokens attend to the future: the mask is missing."] = attention(size_one(q), size_one(k), v)[1]
        expect(wei, right, f"The weights for random x of shape (2, {T}, {C})", slips, atol=1e-4)
        expect(
            out,
            right @ v,
            f"The output for random x of shape (2, {T}, {C})",
            {
                "The values are normalised, too. They are the message; only the scores need bounds.": (
                    right @ size_one(v)
                )
            },
            atol=1e-4,
        )
    return (
        "Queries and keys are now sqrt(hs) long, so that no score exceeds sqrt(hs), however large their "
        "weights grow: the softmax can't saturate. Large models use this to train at higher rates."
    )
