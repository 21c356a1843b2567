"""Checks of the exercises of 05b_notes."""

from collections.abc import Callable
from numbers import Real

import torch

from lecture_lib.self_attention import attention, causal_mask

from .asking import Wrong, ask, expect, several
from .checking import exercise


@exercise("05b.1", Real, "a number, the factor")
def ninth(answer: float) -> str:
    expect(
        abs(answer),  # the sign makes no difference to a variance
        3,
        "The factor for the weights of query",
        {
            "A factor of 9 makes the variance 81 times as large; it grows with the square.": 9,
            "That would be right if query and key were both multiplied by it.": 3**0.5,
            "With that factor the scores become smaller still.": 1 / 3,
            "That's the variance as it is; what brings it to 1?": 1 / 9,
            "That changes nothing: the variance stays 1/9.": 1,
        },
        atol=0.02,
    )
    return (
        "nn.Linear draws weights of variance 1/(3 C), so queries and keys have variance 1/3 and the scores 1/3 * 1/3. "
        "A new head begins close to a plain average, which does no harm: no weight is near 0 or 1, and all can learn."
    )


@exercise("05b.2", Callable, "a function from a mask (T, T) and a number of layers to a boolean (T, T)")
def reach(answer: Callable) -> str:
    window = causal_mask(9).triu(-2)
    for mask, n_layer, name in (
        (window, 3, "a window of 3 tokens"),
        (window, 1, "a window of 3 tokens"),
        (causal_mask(6).triu(-1), 4, "a window of 2 tokens"),
        (torch.rand(7, 7) < 0.25, 2, "a random graph"),
        (torch.eye(5, dtype=torch.bool).roll(1, 0), 3, "a circle"),
    ):
        ways = [mask.float().matrix_power(n) for n in range(n_layer + 2)]
        right = ways[n_layer] > 0
        expect(
            ask(answer, mask, n_layer),
            right,
            f"For {name} of {len(mask)} tokens and {n_layer} layers",
            {
                "That's the graph of a single layer; the layers have to be followed one after the other.": mask,
                "That's one layer too many.": ways[n_layer + 1] > 0,
                "That's one layer too few.": ways[n_layer - 1] > 0,
                "The direction is wrong: row t tells from whom t learns.": right.T,
                "These numbers count the ways that news can take; return whether there is one.": ways[
                    n_layer
                ],
                "You also count what arrives in fewer layers, but it has to pass all of them.": (
                    torch.stack(ways[1 : n_layer + 1]).sum(0) > 0
                ),
            },
        )
    return (
        "A window of w tokens and n layers reach n (w - 1) tokens back: that's how models with small windows read long "
        "texts. News takes one step a layer."
    )


@exercise("05b.3", Callable, "a function from q, k, v, (B, T, hs) each, and lengths (B,) to (B, T, hs)")
def padded_attention(answer: Callable) -> str:
    for lengths in ([5, 3, 1], [2, 6], [4]):
        B, T, hs = len(lengths), max(lengths) + 1, 4
        q, k, v = torch.randn(3, B, T, hs)
        real = torch.arange(T) < torch.tensor(lengths)[:, None]  # (B, T)
        out = ask(answer, q, k, v, torch.tensor(lengths))
        if isinstance(out, torch.Tensor) and out.shape == q.shape and out[~real].isnan().any():
            raise Wrong(
                "Padded positions get NaN: their rows of the mask are empty. Mask the padding as keys, the columns of "
                "wei, for all queries alike; then every row has something to attend to."
            )

        def alone(kept: torch.Tensor, causal: bool = False, real=real, q=q, k=k, v=v) -> torch.Tensor:
            mask = kept[:, None, :] & causal_mask(q.shape[1]) if causal else kept[:, None, :]
            return attention(q, k, v, mask)[0] * real[..., None]

        right, everything = alone(real), torch.ones_like(real)
        expect(
            out * real[..., None] if isinstance(out, torch.Tensor) and out.shape == q.shape else out,
            right,
            f"The outputs of the real tokens for lengths {lengths} and T={T}",
            {
                "The padding is attended to as if it were text.": alone(everything),
                "The padding gets no value, but it still gets weight, which the real tokens lack; mask the scores.": (
                    attention(q, k, v * real[..., None])[0] * real[..., None]
                ),
                "The future is masked. That hides the padding, but in an encoder all real tokens see each other.": (
                    alone(real, causal=True)
                ),
                "One token of padding is attended to: positions 0 to length - 1 are real.": (
                    alone(torch.arange(T) <= torch.tensor(lengths)[:, None])
                ),
                "All rows are cut at the shortest text; each has its own length.": (
                    alone(everything & (torch.arange(T) < min(lengths)))
                ),
            },
        )
    return "Padding is a mask on keys, the same for each query. With it, a batch of texts is as good as each text alone."


@exercise("05b.4", Callable, "a function from q, k, v and d_out, (B, T, hs) each, to d_q, d_k and d_v")
def attention_backward(answer: Callable) -> str:
    for B, T, hs in ((2, 5, 4), (1, 8, 3), (3, 1, 2)):
        q, k, v, d_out = (torch.randn(B, T, hs) for _ in range(4))
        with torch.inference_mode():  # unlike no_grad, it can't be undone from inside
            found = ask(answer, q, k, v, d_out)
        several(found, 3, f"Expected three tensors, (d_q, d_k, d_v); got {type(found).__name__}.")
        wei = attention(q, k, v, causal_mask(T))[1]
        d_wei = d_out @ v.mT
        d_scores = softmax_backward(wei, d_wei)
        alone, missing = wei * (1 - wei) * d_wei, wei * d_wei
        unmasked = attention(q, k, v)[1]
        d_unmasked = softmax_backward(unmasked, d_wei)
        scale = hs**-0.5
        shape = f"for q of shape {(B, T, hs)}"
        expect(
            found[2],
            wei.mT @ d_out,
            f"d_v {shape}",
            {
                "d_v takes wei transposed: a value collects from all queries that attended to it.": wei
                @ d_out,
                "There's no mask: the weights of d_v reach into the future.": unmasked.mT @ d_out,
                "The three gradients are in another order; expected d_q, d_k, d_v.": d_scores @ k * scale,
            },
        )
        for name, gradient, other, turned in (
            ("d_q", found[0], k, lambda scores: scores),
            ("d_k", found[1], q, lambda scores: scores.mT),
        ):
            expect(
                gradient,
                turned(d_scores) @ other * scale,
                f"{name} {shape}",
                {
                    f"The scaling is missing in {name}: the scores were divided by the square root of hs.": (
                        turned(d_scores) @ other
                    ),
                    f"In {name} the softmax counts only with each weight's own score, p (1 - p). But raising one score "
                    "also lowers all other weights of the row.": turned(alone) @ other * scale,
                    f"In {name} the sum over the row is missing from the softmax's gradient: p_i (g_i - sum of p_j g_j).": (
                        turned(missing) @ other * scale
                    ),
                    f"In {name} the softmax is missing: it stands between the weights and the scores.": (
                        turned(d_wei) @ other * scale
                    ),
                    f"In {name} the gradient of the scores has to be "
                    f"{'transposed' if name == 'd_k' else 'as it is, not transposed'}.": (
                        turned(d_scores).mT @ other * scale
                    ),
                    f"There's no mask: {name} depends on weights in the future.": turned(d_unmasked)
                    @ other
                    * scale,
                    "d_q and d_k are swapped.": turned(d_scores).mT @ (q if name == "d_q" else k) * scale,
                },
            )
    return (
        "That's what autograd does. Each gradient of a score is a weight times something: where the weight is nearly 0, or 1 "
        "and the others 0, nothing comes through. So large scores stop the learning."
    )


def softmax_backward(wei: torch.Tensor, d_wei: torch.Tensor) -> torch.Tensor:
    """The gradient by the scores, from the weights that a softmax made of them and the gradient by these."""
    return wei * (d_wei - (wei * d_wei).sum(-1, keepdim=True))
