"""Checks of the exercises of 11_gpt."""

import contextlib
import io
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from lecture_lib.gpt import GPT, GPTConfig
from lecture_lib.long_run import LongRun
from lecture_lib.self_attention import attention, causal_mask
from lecture_lib.tokenization import CharTokenizer
from lecture_lib.training import TrainConfig

from .asking import Wrong, ask, expect
from .checking import exercise
from .multi_head import all_at_once, interleaved, reshaped, viewed
from .watching import refuse_loop, watched


@exercise("11.1", type, "a class of a layer that is made with p and drops numbers in training")
def own_dropout(answer: type) -> str:
    x = 1 + torch.rand(200, 50)
    for p in (0.2, 0.6):
        layer = answer(p)
        evaluated = ask(layer.eval(), x)
        if (evaluated == 0).any():
            raise Wrong("In eval mode yours still drops numbers; `self.training` tells the mode.")
        expect(
            evaluated,
            x,
            f"In eval mode, with p={p}",
            {
                "In eval mode yours makes everything smaller; instead, enlarge in training what stays.": (
                    x * (1 - p)
                ),
                "In eval mode yours makes everything larger; only what stays in training is enlarged.": (
                    x / (1 - p)
                ),
            },
        )
        dropped = ask(layer.train(), x)
        kept = dropped != 0
        expect(
            dropped,
            torch.where(kept, x / (1 - p), 0.0),
            f"In training mode, with p={p}, where a number isn't 0",
            {
                "Nothing enlarges the numbers that stay, so that the mean shrinks; divide them by 1 - p.": (
                    torch.where(kept, x, 0.0)
                ),
                "You multiply what stays by 1 - p; divide by it.": torch.where(kept, x * (1 - p), 0.0),
                "You divide what stays by p; divide by 1 - p, the share that stays.": (
                    torch.where(kept, x / p, 0.0)
                ),
            },
        )
        if (kept == kept[:1]).all() or (kept == kept[:, :1]).all():
            raise Wrong("All rows, or all columns, lose the same numbers; draw for each number on its own.")
        share = kept.float().mean().item()
        expect(
            share,
            1 - p,
            f"The share that stays, with p={p}",
            {f"You keep a share of p={p}; that's the share to drop.": p},
            atol=0.03,
        )
        if torch.equal(dropped, ask(layer, x)):
            raise Wrong("Two calls drop the same numbers; draw again in each call.")
    expect(ask(answer(0.0).train(), x), x, "In training mode, with p=0")
    return (
        "In eval mode it does nothing, so that sampling needs no correction: what stays is enlarged in training "
        "instead. That's nn.Dropout."
    )


def parameters(n_embd: int, n_layer: int, block_size: int = 32, vocab_size: int = 65) -> int:
    """Parameters of a GPT, as section 1 counts them."""
    in_a_block = 12 * n_embd**2 + 10 * n_embd
    return (2 * vocab_size + block_size + 2) * n_embd + vocab_size + n_layer * in_a_block


def closest(total: int, n_layer: int, n_head: int, count: Callable[[int, int], int] = parameters) -> int:
    """The multiple of n_head at which `count` comes closest to `total`."""
    return min(range(n_head, 2000, n_head), key=lambda n_embd: abs(count(n_embd, n_layer) - total))


@exercise("11.2", Callable, "a function of total, n_layer and n_head that gives a width")
def width_for_a_size(answer: Callable) -> str:
    for total, n_layer, n_head in (
        (4_700, 1, 4),
        (1_000_000, 4, 4),
        (10_800_000, 6, 6),
        (30_000, 2, 2),
    ):
        multiples = range(n_head, 2000, n_head)
        expect(
            ask(answer, total, n_layer, n_head),
            closest(total, n_layer, n_head),
            f"The width for {total:,} parameters, n_layer={n_layer}, n_head={n_head}",
            {
                f"It has to be a multiple of n_head={n_head}, or the heads can't share it out.": (
                    closest(total, n_layer, 1)
                ),
                "Blocks alone don't make the model: embeddings, norms and lm_head count, too.": (
                    closest(total, n_layer, n_head, lambda n_embd, n_layer: 12 * n_layer * n_embd**2)
                ),
                "A smaller width comes closer: yours is the first with more parameters than asked for.": next(
                    C for C in multiples if parameters(C, n_layer) >= total
                ),
                "A larger width comes closer: yours is the last with fewer parameters than asked for.": max(
                    (C for C in multiples if parameters(C, n_layer) <= total), default=n_head
                ),
                "That's the width for one block; there are more.": closest(total, 1, n_head),
            },
            atol=0.5,
        )
    return (
        "A width of 144 with 4 layers has 1,024,769 parameters, nearly five times the laptop's for 2.25 times the "
        "width: blocks grow with the square of the width."
    )


@exercise("11.3", Callable, "a function of q, k, v (B, T, C) and n_head that gives (B, T, C)")
def all_heads_at_once(answer: Callable) -> str:
    for B, T, C, n_head in ((2, 6, 12, 3), (3, 4, 8, 2), (1, 5, 4, 4)):
        q, k, v = torch.randn(3, B, T, C).unbind()
        heads = zip(*(part.split(C // n_head, dim=-1) for part in (q, k, v)), strict=True)
        slip = partial(all_at_once, q, k, v)
        expect(
            ask(answer, q, k, v, n_head),
            torch.cat([attention(*head, causal_mask(T))[0] for head in heads], dim=-1),
            f"For random q, k, v of shape ({B}, {T}, {C}) and n_head={n_head}",
            {
                "The cut is wrong: .view(B, n_head, T, hs) mixes positions and channels. Use "
                ".view(B, T, n_head, hs).transpose(1, 2).": slip(n_head, split=viewed, join=reshaped),
                "The cut is wrong: .view(B, n_head, T, hs) mixes positions and channels, in spite of the "
                "transpose at the end.": slip(n_head, split=viewed),
                "The heads' results are put together wrongly: transpose (B, n_head, T, hs) back first.": (
                    slip(n_head, join=reshaped)
                ),
                "A head has every n_head-th channel here; it should have hs neighbouring ones.": (
                    slip(n_head, split=interleaved, join=lambda out: out.permute(0, 2, 3, 1).flatten(2))
                ),
                "The scores are divided by sqrt(C); each head has hs channels, so divide by sqrt(hs).": (
                    slip(n_head, scale="C")
                ),
                "The scores aren't divided by sqrt(hs).": slip(n_head, scale="nothing"),
                "Tokens attend to the future: the mask is missing.": slip(n_head, causal=False),
                "This is one head with all channels; each head has scores of its own.": slip(1),
                "The softmax runs over the queries; each query's weights, the last dimension, sum to 1.": (
                    slip(n_head, over=-2)
                ),
            },
        )
    q, k, v = torch.randn(3, 2, 6, 12).unbind()
    few, many = (watched(answer, q, k, v, n_head) for n_head in (2, 6))
    refuse_loop(few, many, "more heads take", "one after another still")
    return (
        "One product computes the scores of all heads: (B, n_head, T, hs) times (B, n_head, hs, T). It's the "
        "lecture's own exercise, and how nanoGPT does it (chapter 13)."
    )


@exercise("11.4", type, "a subclass of LongRun with its own `between_steps`")
def falling_rate(answer: type) -> str:
    for config in (TrainConfig(2, 4, 7, 3, 1, 1e-3), TrainConfig(2, 4, 4, 2, 1, 0.02)):
        last, highest = config.max_iters - 1, config.learning_rate
        steps = torch.arange(last + 1.0)
        factor = 0.1 ** (1 / last)
        slips = {
            "The rate never changes: set `lr` in self.optimizer.param_groups[0] before each step.": 1
            + 0 * steps,
            "The rate falls to 0, not to a tenth.": 1 - steps / last,
            "The rate is still above a tenth at the last step, whose number is max_iters - 1.": (
                1 - 0.9 * steps / config.max_iters
            ),
            "The rate rises; it should begin with learning_rate and end with a tenth of it.": (
                0.1 + 0.9 * steps / last
            ),
            "Each step lowers the rate that the step before has left; begin with config.learning_rate.": (
                (1 - 0.9 * steps / last).cumprod(dim=0)
            ),
            "Both ends are right, but the rate falls by a factor in each step; it should be a straight line.": (
                factor**steps
            ),
        }
        expect(
            torch.tensor(rates_of(answer, config)),
            highest * (1 - 0.9 * steps / last),
            f"The rates of {config.max_iters} steps with learning_rate={highest:g}",
            {sentence: highest * course for sentence, course in slips.items()},
            atol=1e-3 * highest,
        )
    return (
        "Large steps first, while there is far to go; small ones at the end, when the noise of the batches is most of "
        "what a large step brings. Chapter 13c has the usual course, a warm-up and half a cosine."
    )


def rates_of(kind: type[LongRun], config: TrainConfig) -> list[float]:
    """The learning rate of each step of a tiny run of that kind."""
    tokenizer, rates = CharTokenizer("abc\n"), []
    splits = {name: torch.randint(4, (30,)) for name in ("train", "val")}
    model = GPT(GPTConfig(vocab_size=4, block_size=4, n_embd=4, n_head=2, n_layer=1))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        run = kind(model, tokenizer, config, Path(folder), {"command": "check", "seed": 1})
        run.optimizer.register_step_pre_hook(
            lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"])
        )
        try:
            run.train(splits)
        except FileNotFoundError:
            raise Wrong(
                "The run has kept no checkpoint: LongRun's own between_steps does that, so begin with "
                "`super().between_steps(step)`."
            ) from None
    return rates
