"""Checks of the exercises of 16b_modern_block."""

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from statistics import mean, stdev

import torch
from torch import nn

from lecture_lib.base.corpus import load_corpus
from lecture_lib.evaluation import split_loss
from lecture_lib.gpt import GPTConfig
from lecture_lib.held_out import dev_start
from lecture_lib.language_model import LanguageModel
from lecture_lib.modern_block import ModernBlock, rotary_angles
from lecture_lib.muon import orthogonalised
from lecture_lib.tokenization import load_splits
from lecture_lib.training import TrainConfig, train

from .asking import Wrong, ask, expect, number, tensor
from .checking import exercise


@exercise("16b.1", Callable, "a function of T and hs that gives (T,) numbers")
def falloff(answer: Callable) -> str:
    for T, hs in ((51, 16), (30, 64), (5, 2)):
        angles = rotary_angles(T, hs)
        expect(
            ask(answer, T, hs),
            angles.cos().mean(dim=1),
            f"For T={T}, hs={hs}",
            {
                "Divide by the product at distance 0, so that the first number is 1.": angles.cos().sum(dim=1)
                * 2,
                "That's the sum over the pairs; their mean is asked for.": angles.cos().sum(dim=1),
                "You have the sines: at distance 0 nothing is turned, and the product is largest.": angles.sin().mean(
                    1
                ),
                "Nothing falls: turn the key by its own position, the query by another.": torch.ones(T),
            },
            atol=1e-4,
        )
    return (
        "First below one half at a distance of 9 with 16 channels, and of 28 with 64: more pairs turn slowly in the "
        "longer head, and the slow ones see further. No learned number was needed for it."
    )


@exercise("16b.2", Callable, "a function of a matrix (3 C, C) that gives (3 C, C)")
def apart(answer: Callable) -> str:
    for C in (4, 8):
        matrix = torch.randn(3 * C, C)
        expected = torch.cat([orthogonalised(part) for part in matrix.chunk(3)])
        slips = {
            "That's the fused form: all three matrices are orthogonalised as one.": orthogonalised(matrix),
            "The rows of q, k and v lie one below the other: cut along dim 0.": (
                torch.cat([orthogonalised(part) for part in matrix.chunk(3, dim=1)], dim=1)
            ),
            "That's the matrix itself.": matrix,
        }
        expect(ask(answer, matrix), expected, f"For a random matrix ({3 * C}, {C})", slips, atol=1e-4)
    return (
        "Apart, each of the three gets all its singular values near 1; fused, a large v can leave little for q and k. "
        "The chapter's measurement finds 0.011 to 0.016 for it here, no more than what seeds differ by."
    )


@exercise("16b.3", tuple, "three numbers (a, b, c)")
def polynomial(answer: tuple) -> str:
    if len(answer) != 3:
        raise Wrong(f"Expected three numbers, got {len(answer)}.")
    a, b, c = (number(part, f"number {k}") for k, part in enumerate(answer, start=1))
    stretch = torch.linspace(0.03, 1, 2001, dtype=torch.float64)
    for _ in range(5):
        stretch = a * stretch + b * stretch**3 + c * stretch**5
    away = (stretch - 1).abs()
    if not away.isfinite().all():
        raise Wrong("With your numbers some stretches grow without limit: five steps overflow.")
    worst = torch.linspace(0.03, 1, 2001)[away.argmax()].item()
    if (away.max() - 0.32).abs() < 0.02 and abs(a - 3.4445) < 1e-3:
        raise Wrong(
            "These are Muon's own numbers. They leave stretches 0.32 away from 1, to raise small ones faster."
        )
    if worst < 0.04 and away.max() > 0.01 and away[200:].max() < 0.01:
        raise Wrong(
            f"Only the shortest stretches are left: 0.03 ends {away.max().item():.3f} away from 1. Five steps multiply "
            f"it by about {a:.2f}^5 = {a**5:.0f}; more is needed."
        )
    if away.max() > 0.01:
        raise Wrong(
            f"A stretch of {worst:.2f} ends {away.max().item():.3f} away from 1; expected none further than 0.01."
        )
    return (
        f"None further away than {away.max().item():.4f}. The slope at 0, {a:.2f}, is smaller than Muon's 3.44, "
        "so that stretches far below 0.03 rise more slowly: that is the price of precision."
    )


# ---------------------------------------------------------------- a change of one's own

SMALL = GPTConfig(vocab_size=65, block_size=32, n_embd=32, n_head=2, n_layer=2)
SEEDS = (1337, 1, 2)


@exercise("16b.4", type, "a class of a block, made as `YourBlock(config)`", seconds=60)
def own_block(answer: type) -> str:
    torch.manual_seed(0)
    block = answer(SMALL)
    if not isinstance(block, nn.Module):
        raise Wrong("Your class has to be an nn.Module.")
    check_block(block)
    _, splits = load_splits()
    cut = dev_start(load_corpus(), len(splits["train"]))
    held_out = {
        "train": splits["train"][:cut],
        "val": splits["train"][cut : cut + 8_000],
    }  # dev in val's place
    ours, yours = ([trained_loss(each, held_out, seed) for seed in SEEDS] for each in (ModernBlock, answer))
    gains = [a - b for a, b in zip(ours, yours, strict=True)]
    if not any(gains):
        raise Wrong("It learns exactly as ModernBlock does, to the last digit: nothing has changed yet.")
    gain, error = mean(gains), stdev(gains) / len(gains) ** 0.5
    outcome = (
        "no clear difference" if abs(gain) < 2 * error else "a clear gain" if gain > 0 else "a clear loss"
    )
    return (
        "A causal block in which everything learns. Against ModernBlock, small and for 100 steps, seeds 1337, 1 and 2, "
        f"judged on dev: {outcome}, by two standard errors. Now measure it at equal time, in a run of the length that "
        "counts, with a rate of its own."
    )


def check_block(block: nn.Module) -> None:
    """Wrong unless a block keeps its shape, is causal, has about as many parameters as ours, and all of them learn."""
    size, most = (sum(p.numel() for p in b.parameters()) for b in (block, ModernBlock(SMALL)))
    if not 0.9 * most <= size <= 1.1 * most:
        raise Wrong(
            f"It has {size:,} parameters and ModernBlock {most:,}; a fair comparison needs them within 10%."
        )
    for p in block.parameters():  # zeros at the start would hide what is causal and what learns
        nn.init.normal_(p, std=0.2)
    x = torch.randn(2, 9, SMALL.n_embd)
    before = tensor(block(x), tuple(x.shape), "The output")
    changed = x.clone()
    changed[:, 5:] += 1
    after = block(changed)
    if not torch.allclose(before[:, :5], after[:, :5], atol=1e-5):
        raise Wrong("It isn't causal: positions 0 to 4 changed when only the positions after them did.")
    if torch.allclose(before[:, 7:], block(torch.cat([x[:, :5] + 1, x[:, 5:]], 1))[:, 7:], atol=1e-6):
        raise Wrong("Later positions don't hear of earlier ones at all: the attention is missing.")
    before.square().sum().backward()
    for name, p in block.named_parameters():
        if p.grad is None or not p.grad.abs().sum() > 0:
            raise Wrong(f"{name} gets no gradient: it's constructed, but nothing uses it.")


def trained_loss(make_block: type, splits: dict[str, torch.Tensor], seed: int) -> float:
    """The loss on val, in nats, after 100 steps of a small model of such blocks."""
    torch.manual_seed(seed)
    model = LanguageModel(SMALL.vocab_size, SMALL.block_size, SMALL.n_embd, lambda: body(make_block))
    config = TrainConfig(
        16, SMALL.block_size, max_iters=100, eval_interval=100, eval_iters=1, learning_rate=4e-3
    )
    with redirect_stdout(io.StringIO()):  # its estimates don't matter here
        train(model, splits, config)
    return split_loss(model, splits["val"])


def body(make_block: type) -> nn.Module:
    """Two blocks."""
    return nn.Sequential(*(make_block(SMALL) for _ in range(SMALL.n_layer)))
