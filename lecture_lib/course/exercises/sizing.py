"""Checks of the exercises of 13d_sizing."""

from collections.abc import Callable

from lecture_lib.nanogpt import NanoGPTConfig
from lecture_lib.sizing import PUBLISHED, cache_bytes, forward_flops, parameter_counts, training_bytes

from .asking import Wrong, ask, expect, number, several
from .checking import exercise

SIZES = {"the lecture's": NanoGPTConfig(65, 256, 384, 6, 6), **PUBLISHED}


def close(got: object, expected: float, what: str, slips: dict[str, float]) -> None:
    """`expect` for numbers of any size, equal to six digits: both are divided by what is expected."""
    slips = {sentence: wrong / expected for sentence, wrong in slips.items()}
    share = number(got, what) / expected
    if all(abs(share - other) > 1e-6 for other in (1.0, *slips.values())):
        raise Wrong(f"{what}: expected {expected:.6g}, got {number(got, what):.6g}.")
    expect(share, 1.0, what, slips, atol=1e-6)


# ---------------------------------------------------------------- 13d.1


@exercise("13d.1", Callable, "a function of config, tokens, peak and mfu that gives days")
def days_of_training(answer: Callable) -> str:
    cases = (
        ("GPT-2 124M", 9e9, 312e12, 0.4),
        ("GPT-3 175B", 300e9, 1024 * 312e12, 0.5),
        ("the lecture's", 82e6, 100e9, 0.8),
    )
    for name, tokens, peak, mfu in cases:
        config = SIZES[name]
        forward, N = sum(forward_flops(config).values()), sum(parameter_counts(config).values())
        days = 3 * forward * tokens / (peak * mfu) / 86400
        close(
            ask(answer, config, tokens, peak, mfu),
            days,
            f"Days for {name}, {tokens:.3g} tokens, a peak of {peak:.3g} and mfu={mfu}",
            {
                "That's the forward pass alone; training costs three times as much.": days / 3,
                "A smaller share of the peak takes longer: divide by mfu.": days * mfu**2,
                "This assumes the full peak; only the share mfu of it is reached.": days * mfu,
                "These are seconds; expected days.": days * 86400,
                "These are hours; expected days.": days * 24,
                "Six operations for each parameter is the rule of thumb; count the scores as well.": (
                    6 * N / (3 * forward) * days
                ),
            },
        )
    return (
        "GPT-2 124M on 9 billion tokens, one pass over OpenWebText, takes one A100 0.7 days at an MFU of 40%; "
        "GPT-3 on 300 billion tokens takes 1,024 of them 23 days at 50%."
    )


# ---------------------------------------------------------------- 13d.2


@exercise("13d.2", Callable, "a function of config and memory that gives a whole number of texts")
def largest_batch(answer: Callable) -> str:
    for name, memory in (
        ("GPT-2 124M", 80e9),
        ("GPT-2 1.5B", 80e9),
        ("GPT-2 124M", 24e9),
        ("GPT-3 175B", 80e9),
    ):
        config = SIZES[name]
        parts = training_bytes(config, B=1)
        fixed, kept = sum(parts.values()) - parts["activations"], parts["activations"]
        text = kept + 2 * 4 * config.block_size * config.vocab_size
        largest = max(0, int((memory - fixed) // text))
        expect(
            ask(answer, config, memory),
            largest,
            f"The largest batch for {name} in {memory:.0e} bytes",
            {
                "The peak is higher than what is kept: the backward pass adds two gradients as large as the logits.": (
                    max(0, int((memory - fixed) // kept))
                ),
                "Two gradients are as large as the logits; you count one.": (
                    max(0, int((memory - fixed) // (text - 4 * config.block_size * config.vocab_size)))
                ),
                "One text more doesn't fit any more: yours is too large by one.": largest + 1,
                "Weights, gradients and AdamW's averages don't grow with the batch; count them once.": (
                    int(memory // (fixed + text))
                ),
                "Weights, gradients and AdamW's averages need their place, too.": int(memory // text),
                "A batch can't be smaller than 0: if the weights alone don't fit, it's 0.": (
                    int((memory - fixed) // text)
                ),
            },
            atol=0.01,
        )
    return (
        "63 texts of GPT-2 124M go into 80 GB at once; without the logits' gradients it would look like 95. "
        "GPT-3's weights alone are too much. So large models are split, and large batches accumulated."
    )


# ---------------------------------------------------------------- 13d.3


@exercise("13d.3", Callable, "a function of a config that gives a context, in tokens")
def half_scores(answer: Callable) -> str:
    for name in ("GPT-2 124M", "GPT-2 1.5B", "the lecture's"):
        V, C, L = (config := SIZES[name]).vocab_size, config.n_embd, config.n_layer
        half = 6 * C + V / (2 * L)
        expect(
            ask(answer, config),
            half,
            f"The context for {name}",
            {
                "At that context they take half of a block's operations; the logits' come on top.": 6.0 * C,
                "You count 2TC a block; the scores take 2TC, and mixing the values as much again.": 2 * half,
                "A matrix of n weights takes 2n operations, a multiplication and an addition each.": half / 2,
                "The logits' matrix stands there once, not in each of the blocks.": 6 * C + V / 2,
            },
            atol=1.0,
        )
    return (
        "At GPT-2's own 1,024 tokens, scores take 13% of the operations, and half of them only from 6,702 on. "
        "The wider the model, the later the square of the context counts: 6C."
    )


# ---------------------------------------------------------------- 13d.4


@exercise("13d.4", Callable, "a function of config and n_kv_head that gives parameters and bytes")
def grouped_sizes(answer: Callable) -> str:
    for name, n_kv_head in (("GPT-3 175B", 8), ("GPT-2 124M", 4), ("GPT-2 124M", 12), ("the lecture's", 1)):
        config = SIZES[name]
        C, L, T, hs = config.n_embd, config.n_layer, config.block_size, config.n_embd // config.n_head
        given = ask(answer, config, n_kv_head)
        several(given, 2, "Expected two numbers, parameters and bytes of the cache.")
        full, fewer = sum(parameter_counts(config).values()), 2 * (C - n_kv_head * hs)
        what = f"of {name} with n_kv_head={n_kv_head}"
        close(
            given[0],
            full - L * (C * fewer + fewer),
            f"The parameters {what}",
            {
                "Fewer keys and values also means fewer biases for them.": full - L * C * fewer,
                "Keys lose channels, and so do values; you take away one of the two.": (
                    full - L * (C + 1) * fewer / 2
                ),
                "Queries stay as they were; only keys and values become fewer.": full
                - L * (C + 1) * fewer * 1.5,
                "These are the parameters with all heads' keys and values.": full,
                "You have changed one block; there are n_layer.": full - (C + 1) * fewer,
            },
        )
        close(
            given[1],
            2 * L * T * n_kv_head * hs * 4,
            f"The bytes of a cache {what}",
            {
                "This is the cache with all heads' keys and values.": cache_bytes(config),
                "n_kv_head is a number of heads; each has hs channels.": 2 * L * T * n_kv_head * 4,
                "The cache holds keys and values; this is one of the two.": L * T * n_kv_head * hs * 4,
                "A number in 32 bits takes 4 bytes.": 2 * L * T * n_kv_head * hs,
                "Each block has a cache.": 2 * T * n_kv_head * hs * 4,
            },
        )
    return (
        "With 8 sets of keys and values instead of 96, GPT-3's cache shrinks from 18 GiB to 1.5, and its parameters "
        "by 15% on the way. The arithmetic of the scores stays: there are as many queries as before."
    )


# ---------------------------------------------------------------- 13d.5


def model_of(n: int) -> NanoGPTConfig:
    """The model with n layers, n heads of 64, and GPT-2's vocabulary and context."""
    return NanoGPTConfig(50257, 1024, n_embd=64 * n, n_head=n, n_layer=n)


def largest_within(budget: float, cost: Callable[[NanoGPTConfig], float]) -> int:
    """The largest n for which the model's cost is within the budget."""
    n = 1
    while cost(model_of(n + 1)) <= budget:
        n += 1
    return n


def chinchilla(config: NanoGPTConfig) -> float:
    """The operations of training on 20 tokens for each parameter."""
    return 3 * sum(forward_flops(config).values()) * 20 * sum(parameter_counts(config).values())


@exercise("13d.5", Callable, "a function of a budget that gives a whole number")
def affordable(answer: Callable) -> str:
    for budget in (1e18, 3e19, 1e21, 2e22):
        n = largest_within(budget, chinchilla)
        slips = {
            "Six operations for each parameter and token is the rule of thumb; count the scores as well.": (
                largest_within(budget, lambda config: 120 * sum(parameter_counts(config).values()) ** 2)
            ),
            "The first that costs too much isn't affordable: yours is one step too large.": n + 1,
            "That's one step too small: the next larger model is affordable, too.": n - 1,
            "You count the forward pass alone; training takes three times as much.": largest_within(
                budget, lambda config: chinchilla(config) / 3
            ),
            "Each parameter wants 20 tokens; you count one.": largest_within(
                budget, lambda config: chinchilla(config) / 20
            ),
        }
        expect(ask(answer, budget), n, f"For a budget of {budget:.3g} operations", slips, atol=0.01)
    return (
        "Ten times the budget buys about three times the parameters and three times the tokens, while layers "
        "and channels only grow by half: the budget goes with the sixth power of the width."
    )
