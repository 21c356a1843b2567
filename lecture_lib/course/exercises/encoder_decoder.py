"""Checks of the exercises of 12_encoder_decoder."""

from collections.abc import Callable

import torch
from torch import nn

from lecture_lib.encoder_decoder import DecoderBlock, Encoder, TranslatorConfig, padding_mask
from lecture_lib.self_attention import causal_mask
from lecture_lib.sequences import PAD, MarkedTokenizer, encode_targets

from ..counterparts import copy_weights, counterparts
from .asking import Wrong, ask, expect, subclass, tensor
from .checking import exercise

CONFIG = TranslatorConfig(src_vocab_size=13, tgt_vocab_size=13, block_size=12, n_embd=16, n_head=2, n_layer=2)


# ---------------------------------------------------------------- 12.1


@exercise("12.1", Callable, "a function of n_embd and n_layer that gives a number of parameters")
def cross_parameters(answer: Callable) -> str:
    for C, L in ((64, 2), (32, 3), (8, 1)):
        expect(
            ask(answer, C, L),
            L * (4 * C**2 + 3 * C),
            f"For n_embd={C}, n_layer={L}",
            {
                "You have one block's; there are n_layer of them.": 4 * C**2 + 3 * C,
                "The matrices are right. What's missing is smaller: the projection's bias, and the norm.": (
                    L * 4 * C**2
                ),
                "Attention is right, but the third part of a block brings a third norm, ln3.": (
                    L * (4 * C**2 + C)
                ),
                "A vector of C numbers is missing in each block: the projection has a bias, the norm gain and bias.": (
                    L * (4 * C**2 + 2 * C)
                ),
                "Keys, queries and values have no bias here; only the projection has one.": (
                    L * (4 * C**2 + 6 * C)
                ),
                "There are four matrices, not three: after the heads comes a projection.": (
                    L * (3 * C**2 + 2 * C)
                ),
            },
        )
    return (
        "But for embeddings and logits, that's all by which the two halves differ: 4C² a block, as much as "
        "self-attention. The lengths of source and target don't matter; no matrix knows of them."
    )


# ---------------------------------------------------------------- 12.2


@exercise("12.2", type, "a subclass of Encoder with a mask of its own")
def causal_encoder(answer: type) -> str:
    encoder = subclass(answer, Encoder)(CONFIG)
    src = torch.randint(3, 13, (3, 7))  # (B, S)
    src[1, 4:] = PAD
    mask = ask(encoder.mask, src)
    if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool:
        raise Wrong("The mask has to be a tensor of dtype torch.bool, True where a token may see another.")
    real, past = src != PAD, causal_mask(7)  # (B, S), (S, S)

    def seen(mask: torch.Tensor) -> torch.Tensor:
        """For each token that isn't padding, which of the others it sees: (N, S)."""
        return (mask.expand(3, 2, 7, 7)[:, 0] & real[:, None])[real]

    try:
        mask = mask.expand(3, 2, 7, 7)
    except RuntimeError:
        shape = tuple(mask.shape)
        raise Wrong(f"The mask's shape is {shape}; expected one that broadcasts to (3, 2, 7, 7).") from None
    expect(
        seen(mask),
        seen(past),
        "What the tokens may attend to, a row for each",
        {
            "The future is still visible: your mask hides padding at most, as the plain Encoder's does.": seen(
                torch.ones(7, 7, dtype=torch.bool)
            ),
            "Your mask is transposed: a token sees itself and what comes after it.": seen(past.T),
            "Your mask hides what it should show: True means *may attend to*.": seen(~past),
            "A token has to see itself; as it is, the first may attend to nothing, and gets NaN.": seen(
                past.tril(-1)
            ),
        },
    )
    if not ask(encoder, src).isfinite().all():
        raise Wrong("Your mask lets padding attend to nothing, and the softmax of such a row is NaN.")
    return (
        "Now the first token sees only itself: whatever follows, its memory is the same. So BERT, which judges "
        "a text by its first token, can't be causal; a GPT that judges has to use its last token."
    )


# ---------------------------------------------------------------- 12.3


@exercise("12.3", type, "a subclass of DecoderBlock with a forward of its own")
@torch.no_grad()
def post_norm_block(answer: type) -> str:
    block = subclass(answer, DecoderBlock)(16, 2)
    for norm in (block.ln1, block.ln2, block.ln3):  # of new norms, each does the same as any other
        nn.init.normal_(norm.weight, mean=1.0)
        nn.init.normal_(norm.bias)
    layer = nn.TransformerDecoderLayer(16, 2, 64, dropout=0.0, batch_first=True, norm_first=False)
    for theirs, ours in counterparts(layer, block):
        copy_weights(theirs, ours)
    x, memory = torch.randn(2, 5, 16), torch.randn(2, 7, 16)  # (B, T, C), (B, S, C)
    padding = torch.arange(7) >= torch.tensor([[7], [4]])  # (B, S)
    given, mask = (x, memory), ~padding[:, None, None]  # (B, 1, 1, S)
    expect(
        ask(block, *given, mask),
        layer(*given, tgt_mask=~causal_mask(5), memory_key_padding_mask=padding),
        "For random x (2, 5, 16) and memory (2, 7, 16)",
        {
            "The norms still come first, as in the chapter's block.": DecoderBlock.forward(
                block, *given, mask
            ),
            "You normalise what a part gives and then add it; the paper adds first, and normalises the sum.": (
                post_norm(block, *given, mask, inside=True)
            ),
            "Two norms are exchanged: ln3 belongs to cross-attention, ln2 to the feed-forward.": post_norm(
                block, *given, mask, norms=("ln1", "ln2", "ln3")
            ),
            "Cross-attention attends to padding: hand memory_mask on to it.": post_norm(block, *given, None),
            "Self-attention sees the future: the causal mask is missing.": post_norm(
                block, *given, mask, causal=False
            ),
            "The old x isn't added: each part's output is normalised alone.": post_norm(
                block, *given, mask, add=False
            ),
        },
    )
    return (
        "Equal to PyTorch's layer with norm_first=False. In this block every number on the way from input to "
        "output passes three norms; with norms first, a clean path of sums leads through."
    )


def post_norm(
    block: DecoderBlock,
    x: torch.Tensor,
    memory: torch.Tensor,
    mask: torch.Tensor | None,
    norms: tuple[str, str, str] = ("ln1", "ln3", "ln2"),
    inside: bool = False,
    causal: bool = True,
    add: bool = True,
) -> torch.Tensor:
    """A block that normalises sums, or one that makes a mistake of the kind that a keyword names."""
    past = causal_mask(x.shape[1]) if causal else None
    parts = (lambda x: block.sa(x, x, past), lambda x: block.ca(x, memory, mask), block.ffwd)
    for part, name in zip(parts, norms, strict=True):
        norm = getattr(block, name)
        x = x + norm(part(x)) if inside else norm(x * add + part(x))
    return x


# ---------------------------------------------------------------- 12.4


@exercise("12.4", type, "a subclass of Encoder that reads rows padded on the left")
def left_encoder(answer: type) -> str:
    encoder = subclass(answer, Encoder)(CONFIG)
    rows = [torch.randint(3, 13, (length,)) for length in (8, 5, 1)]
    right = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)  # (B, S)
    left = torch.stack([torch.cat([torch.full((8 - len(row),), PAD), row]) for row in rows])
    memory, real = tensor(ask(encoder, left), (3, 8, 16), "The memory of a batch (3, 8)"), left != PAD
    places = (real.cumsum(dim=1) - 1).clamp(min=0)  # (B, S)
    plain, seen = torch.arange(8).expand(3, 8), padding_mask(left)
    expect(
        memory[real],
        Encoder.forward(encoder, right)[right != PAD],
        "The memory at the tokens of rows of 8, 5 and 1, compared with Encoder's for padding on the right",
        {
            "This is what Encoder does: padding shifts the positions, and the first column is visible.": (
                memory_at(encoder, left, plain, seen)[real]
            ),
            "The positions are right. But padding_mask always shows column 0, and here that's padding.": (
                memory_at(encoder, left, places, seen)[real]
            ),
            "Padding is hidden, but the positions are still those of the columns.": (
                memory_at(encoder, left, plain, real[:, None, None])[real]
            ),
            "The positions are too high by one: a row's first token is at position 0.": (
                memory_at(encoder, left, places + 1, real[:, None, None])[real]
            ),
            "The positions are right, but nothing hides the padding.": (
                memory_at(encoder, left, places, torch.ones(3, 1, 1, 8).bool())[real]
            ),
        },
        atol=1e-4,
    )
    if not ask(encoder, torch.full((2, 4), PAD)).isfinite().all():
        raise Wrong(
            "A row of nothing but padding gives NaN: one column must stay visible. Which is harmless?"
        )
    return (
        "Two things hung on the side of the padding: what position 0 means, and which column may stay visible. "
        "Chapter 13b pads on the left, since there all rows have to end together."
    )


def memory_at(encoder: Encoder, src: torch.Tensor, at: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The memory (B, S, C) of ids (B, S) whose tokens are at the positions `at` (B, S)."""
    x = encoder.embed.tokens(src) + encoder.embed.positions[at]  # (B, S, C)
    for block in encoder.blocks:
        x = block(x, mask)
    return encoder.norm(x)


# ---------------------------------------------------------------- 12.5


@exercise("12.5", nn.Module, "a trained module that gives logits (B, 2), even and odd, for ids (B, S)")
@torch.no_grad()
def odd_or_even(answer: nn.Module) -> str:
    numbers = torch.arange(0, 10_000, 3)
    ids = encode_targets(MarkedTokenizer("0123456789"), [str(n) for n in numbers.tolist()])  # (N, 6)
    answer.eval()
    logits = ask(answer, ids)
    if isinstance(logits, torch.Tensor) and logits.shape == (len(ids), 6, 2):
        raise Wrong("You give logits for each token, (B, S, 2); the first token's are the judgement, (B, 2).")
    logits = tensor(logits, (len(ids), 2), f"The logits of {len(ids):,} numbers")
    if not torch.allclose(
        ask(answer, ids[:34, :4]), logits[:34], atol=1e-3
    ):  # 0, 3, ... 99 fit into 4 columns
        raise Wrong(
            "In a batch of their own, with less padding, numbers below 100 get other logits. Is the judgement read "
            "off the last column, not the first?"
        )
    right = (logits.argmax(dim=1) == numbers % 2).float().mean().item()
    if right < 0.02:
        raise Wrong("Every judgement is the wrong way round: logit 0 is for even, logit 1 for odd.")
    if right < 0.6:
        raise Wrong(
            f"{right:.0%} of {len(ids):,} numbers below 10,000 are judged right: that's guessing. Has it been trained? "
            "And can its first token see the others?"
        )
    if right < 0.98:
        raise Wrong(
            f"{right:.1%} of {len(ids):,} numbers below 10,000 are judged right; expected 98%. Train longer."
        )
    return (
        f"{right:.1%} right, and half of these numbers it had never seen. The first token is <start> in every "
        "text: all it knows of the number, attention has brought there."
    )
