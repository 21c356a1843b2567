"""Checks of the exercises of 15_conclusions."""

from collections.abc import Callable
from statistics import mean, pstdev, stdev

import torch

from .asking import ask, expect, number, several
from .checking import exercise


@exercise("15.1", Callable, "a function of a loss and a list of losses that gives a number")
def own_seed(answer: Callable) -> str:
    for loss, losses in (
        (2.43, [2.39, 2.41, 2.40, 2.42, 2.44]),
        (2.0, [2.05, 2.11, 2.06, 2.09]),
    ):
        above, sd = loss - mean(losses), stdev(losses)
        expect(
            ask(answer, loss, losses),
            above / sd,
            f"For a loss of {loss} and {losses}",
            {
                "The sign is turned round: a loss above the mean gives a positive number.": -above / sd,
                "That's the distance from the mean in nats; divide by the standard deviation.": above,
                "You divide by the variance; its root is the standard deviation.": above / sd**2,
                "The standard deviation of a few runs divides by n - 1, as `statistics.stdev` does; yours by n.": (
                    above / pstdev(losses)
                ),
                "You divide by the error of the mean; one run is to be compared with the spread of single runs.": (
                    above / (sd / len(losses) ** 0.5)
                ),
            },
            atol=1e-4,
        )
    return (
        "If nothing is wrong, one run in twenty lies more than two standard deviations away, as long as many runs "
        "tell the spread. If only five tell it, about one in seven does."
    )


def llama(
    n_layer: int,
    n_embd: int,
    hidden: int,
    vocab_size: int,
    *,
    attention: int = 4,
    feed_forward: int = 3,
    norms: int = 2,
    last_norm: int = 1,
    tables: int = 2,
) -> int:
    """Parameters of a Llama 2; the named ones are how many matrices, or vectors, there are of a kind."""
    block = attention * n_embd**2 + feed_forward * n_embd * hidden + norms * n_embd
    return tables * vocab_size * n_embd + n_layer * block + last_norm * n_embd


@exercise("15.2", Callable, "a function of n_layer, n_embd, hidden and vocab_size that gives a number")
def llama_counted(answer: Callable) -> str:
    for sizes in ((2, 8, 20, 50), (32, 4096, 11_008, 32_000), (40, 5120, 13_824, 32_000)):
        n_layer, n_embd, hidden, vocab_size = sizes
        expect(
            ask(answer, *sizes),
            llama(*sizes),
            f"For {n_layer} layers of {n_embd:,} channels, hidden={hidden:,}, vocab_size={vocab_size:,}",
            {
                "Embedding and logits have a matrix each; you count one.": llama(*sizes, tables=1),
                "The feed-forward part has three matrices; you count two.": llama(*sizes, feed_forward=2),
                "A norm has a gain and no shift here (RMSNorm).": llama(*sizes, norms=4, last_norm=2),
                "The norms are missing, two in each block and one at the end.": llama(
                    *sizes, norms=0, last_norm=0
                ),
                "The last norm, before the logits, is missing.": llama(*sizes, last_norm=0),
                "Attention has four matrices: queries, keys, values and the projection.": llama(
                    *sizes, attention=3
                ),
                "Only one layer is counted.": llama(1, *sizes[1:]),
            },
            atol=0.5,
        )
    return (
        "Llama 2's 7B has 6,738,415,616 parameters, and 13B 13,015,864,320. In its largest model groups of heads "
        "share their keys and values, so there the formula needs a change."
    )


@exercise("15.3", Callable, "a function of the operations that gives a pair, parameters and tokens")
def compute_optimal(answer: Callable) -> str:
    for flops in (1.2e12, 5.3e15, 3.14e23):
        found = ask(answer, flops)
        several(found, 2, f"Expected a pair, parameters and tokens, got {type(found).__name__}.")
        N, D = number(found[0], "Parameters"), number(found[1], "Tokens")
        right = (flops / 120) ** 0.5
        expect(
            N / right,
            1.0,
            f"Parameters for {flops:.3g} operations, as a share of the right number",
            {
                "The pair is the other way round: parameters first, then tokens.": 20.0,
                "The 6 is missing: training takes 6 operations for each parameter and token.": 6**0.5,
                "You count 2 operations for each parameter and token; with the backward pass they are 6.": 3
                ** 0.5,
                "The 20 is missing: there should be 20 tokens for each parameter.": 20**0.5,
                "That's 20 parameters for each token; it's 20 tokens for each parameter.": 20.0,
                "The root is missing: operations grow with the square of the size.": right,
            },
            atol=1e-3,
        )
        expect(
            D / N,
            20.0,
            f"Tokens for each parameter, for {flops:.3g} operations",
            {"You return the parameters twice; the second number is the tokens.": 1.0},
            atol=1e-2,
        )
    return (
        "GPT-3's operations would by this rule have gone into 51 billion parameters and a trillion tokens; it had 175 "
        "and 0.3. Tiny Shakespeare, read once, deserves 50,000 parameters."
    )


@exercise("15.4", Callable, "a function of sizes, losses and a size that gives the loss expected there")
def predicted_loss(answer: Callable) -> str:
    for floor, scale, exponent in ((1.5, 40.0, 0.3), (0.8, 60.0, 0.4), (2.0, 9.0, 0.2)):
        sizes = [1e4, 3e4, 1e5, 3e5, 1e6]
        losses = [floor + scale * size**-exponent for size in sizes]
        size = 1e8
        x, y = torch.tensor(sizes).double().log(), torch.tensor(losses).double()
        at = torch.tensor(size).double().log()
        expect(
            ask(answer, sizes, losses, size),
            floor + scale * size**-exponent,
            f"For {', '.join(f'{loss:.3f}' for loss in losses)} at sizes from 10,000 to a million, at {size:g}",
            {
                "You fit a power law that falls to 0; let it fall to a floor that you look for as well.": (
                    line(x, y.log(), at).exp().item()
                ),
                "You go on along a straight line in log(size); the losses bend.": line(x, y, at).item(),
                "That's the loss of the largest model; a model a hundred times larger gets further down.": losses[
                    -1
                ],
                "That's the floor alone; at this size some of the rest is left.": floor,
            },
            atol=0.01,
        )
    return (
        "Such fits, over much larger ranges, are how the makers of large models choose sizes before they train. The "
        "floor is what no model can predict, whatever its size."
    )


def line(x: torch.Tensor, y: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """The straight line through points (n,), (n,) by least squares, at another place."""
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    return y.mean() + slope * (at - x.mean())
