"""Checks of the exercises of 09_residual."""

import copy
from collections.abc import Callable
from itertools import combinations
from math import comb
from numbers import Real

import torch
from torch import nn

from lecture_lib.residual import ResidualBlock, ResidualModel

from .asking import Wrong, ask, expect
from .checking import exercise


@exercise("09.1", Real, "a number of parameters")
def without_projection(answer: float) -> str:
    layers, C = 3, 32
    expect(
        answer,
        layers * (C**2 + C),
        "Parameters of the projections",
        {
            "That's one projection; each of the three blocks has its own.": C**2 + C,
            "These are the weights alone; nn.Linear(32, 32) has 32 biases as well.": layers * C**2,
            "That's what remains; hand in how many go.": 41_921 - layers * (C**2 + C),
            "These are the parameters of the heads. The projection is the layer behind them.": layers
            * 3
            * C**2,
            "These are the heads and the projections together; only the projections go.": (
                layers * (4 * C**2 + C)
            ),
        },
        atol=0.5,
    )
    return (
        "It's one parameter in thirteen. For that, every head can write to every channel of the stream, not "
        "only to its own eight."
    )


@exercise("09.2", type, "a class that is made like ResidualBlock and has its own `forward`")
def parallel_halves(answer: type) -> str:
    for shape in ((2, 3, 6), (4, 5, 8)):
        C = shape[-1]
        sa, ffwd = (nn.Sequential(nn.Linear(C, C), nn.ReLU(), nn.Linear(C, C)) for _ in range(2))
        x = torch.randn(shape)
        expect(
            ask(answer(sa, ffwd), x),
            x + sa(x) + ffwd(x),
            f"For random halves and x of shape {shape}",
            {
                "This is still the block of the chapter: ffwd reads x with sa's output added to it.": (
                    ResidualBlock(sa, ffwd)(x)
                ),
                "x itself is lost: both halves have to be added to it.": sa(x) + ffwd(x),
                "x counts twice: each half is added to it, but it's there only once.": 2 * x
                + sa(x)
                + ffwd(x),
                "ffwd reads what sa puts out; here both read x.": x + ffwd(sa(x)),
                "sa's result is used only by ffwd; both results are added to x.": x + ffwd(x + sa(x)),
                "Only attention adds to x; the feed-forward layer is missing.": x + sa(x),
                "Only the feed-forward layer adds to x; attention is missing.": x + ffwd(x),
            },
        )
    return (
        "Both halves read the same x, so they can be computed at the same time. A token can think about what "
        "attention found only in the next block. The last assertion of section 5 is the one that fails."
    )


@exercise("09.3", Callable, "a function that silences a model and returns it")
def silent_start(answer: Callable) -> str:
    for n_layer in (1, 3):
        model, idx = ResidualModel(11, 4, 8, 2, n_layer), torch.randint(11, (5, 4))
        silent = ask(answer, model)
        if not isinstance(silent, nn.Module):
            raise Wrong(f"Expected the model, got {type(silent).__name__}; is there a `return model`?")
        expect(
            silent(idx)[0].detach(),
            model.lm_head(model.embed(idx)).detach(),
            f"The logits of a silenced model of {n_layer} blocks, which are lm_head(embed(idx))",
            {
                "Nothing has changed: these are the model's own logits.": model(idx)[0].detach(),
                "The last layers' weights are zero, but their biases still add something.": logits(
                    model, idx, {"sa.proj.weight", "ffwd.net.2.weight"}
                ),
                "The last layers' biases are zero, but their weights still work.": logits(
                    model, idx, {"sa.proj.bias", "ffwd.net.2.bias"}
                ),
                "Attention is silent, the feed-forward layers aren't.": logits(
                    model, idx, {"sa.proj.weight", "sa.proj.bias"}
                ),
                "The feed-forward layers are silent, attention isn't.": logits(
                    model, idx, {"ffwd.net.2.weight", "ffwd.net.2.bias"}
                ),
                "You silenced the first layer of the feed-forward part, net[0]; its last one is net[2].": logits(
                    model, idx, {"sa.proj.weight", "sa.proj.bias", "ffwd.net.0.weight", "ffwd.net.0.bias"}
                ),
                "All logits are 0: lm_head or the embeddings lost their numbers, too.": torch.zeros(5, 4, 11),
            },
        )
        for (name, before), after in zip(model.named_parameters(), silent.parameters(), strict=True):
            if is_last(name) and (after.any() or not after.requires_grad):
                raise Wrong(
                    f"The model is silent, but {name} isn't 0, or can't be trained any more. Set its numbers to 0, and "
                    "leave the rest as it is: the half must be able to learn to speak."
                )
            if not is_last(name) and not torch.equal(before, after):
                raise Wrong(
                    f"{name} was changed, too. Only the last layer of each half may be 0: where two layers in a "
                    "row are 0, neither gets a gradient, and the half never learns to speak."
                )
    return (
        "The model begins as lm_head(embed). In the first step only the silent layers get a gradient, since the "
        "product rule multiplies all others in the blocks by their zeros; from the second step on, all learn."
    )


LAST = ("sa.proj.weight", "sa.proj.bias", "ffwd.net.2.weight", "ffwd.net.2.bias")


def is_last(name: str) -> bool:
    """Whether a parameter belongs to the last layer of a half of a block."""
    return name.endswith(LAST)


@torch.no_grad()
def logits(model: ResidualModel, idx: torch.Tensor, zeroed: set[str]) -> torch.Tensor:
    """What the model says if in each block the parameters of these names are 0."""
    twin = copy.deepcopy(model)
    for name, parameter in twin.named_parameters():
        if name.endswith(tuple(zeroed)):
            parameter.zero_()
    return twin(idx)[0]


@exercise("09.4", Callable, "a function of matrices (n, C, C) and x (C,) that gives a tensor (n + 1, C)")
def sum_of_paths(answer: Callable) -> str:
    for n, C in ((1, 3), (2, 4), (4, 3)):
        matrices, x = torch.randn(n, C, C), torch.randn(C)
        by_length = paths(matrices, x)
        stream = [x]
        for matrix in matrices:
            stream.append(stream[-1] + matrix @ stream[-1])
        stream = torch.stack(stream)  # (n + 1, C)
        counts = torch.tensor([comb(n, k) for k in range(n + 1)])[:, None]
        chain = torch.stack([paths(matrices[:k], x)[-1] for k in range(n + 1)])
        expect(
            ask(answer, matrices, x),
            by_length,
            f"For {n} random matrices of {C} by {C}",
            {
                "The matrices are applied in the wrong order; the first one reads x first.": (
                    paths(matrices.flip(0), x)
                ),
                "Row k is the stream after k layers, where paths of all lengths up to k are mixed.": stream,
                "Row k is what layer k adds to the stream; that mixes paths of all lengths up to k.": torch.cat(
                    [x[None], stream.diff(dim=0)]
                ),
                "Row k is one path only, the one through the first k layers; there are others as long.": chain,
                "These are means over the paths of a length; take their sums.": by_length / counts,
                "The longest paths come first; row 0 is x, which passes through no layer.": by_length.flip(0),
            },
            atol=1e-3,
        )
    return (
        "A stack of n additions is a sum over 2 ** n paths. A plain chain has only the longest of them, which is "
        "the faintest if every layer makes vectors shorter; the additions bring all the shorter ones."
    )


def paths(matrices: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """For each length, 0 to n, the sum over all paths through so many layers, one by one."""
    sums = []
    for length in range(len(matrices) + 1):
        total = torch.zeros_like(x)
        for chosen in combinations(matrices, length):
            along = x
            for matrix in chosen:
                along = matrix @ along
            total = total + along
        sums.append(total)
    return torch.stack(sums)
