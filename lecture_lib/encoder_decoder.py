"""Encoder, decoder, both.

From notebooks/12_encoder_decoder.ipynb.
Video 1:42:39.
Written by `lecture promote`: edit the notebook, not this file.

Vaswani et al. 2017: https://arxiv.org/abs/1706.03762
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from lecture_lib.residual import WideFeedForward
from lecture_lib.self_attention import attention, causal_mask
from lecture_lib.sequences import PAD

__all__ = [
    "Attention",
    "Decoder",
    "DecoderBlock",
    "Embeddings",
    "Encoder",
    "EncoderBlock",
    "EncoderDecoder",
    "TranslatorConfig",
    "padding_mask",
    "sinusoids",
    "translation_loss",
]


class Attention(nn.Module):
    """Multi-head attention whose keys and values may come from another text than its queries (video 1:15:39).

    Sections 3.2.2 and 3.2.3 of Vaswani et al. 2017. Raises ValueError unless n_head divides n_embd.
    """

    def __init__(self, n_embd: int, n_head: int):
        super().__init__()
        if n_head < 1 or n_embd % n_head:
            raise ValueError(f"n_embd is {n_embd}, n_head is {n_head}; expected n_head to divide n_embd")
        self.n_head = n_head
        self.key = nn.Linear(n_embd, n_embd, bias=False)
        self.query = nn.Linear(n_embd, n_embd, bias=False)
        self.value = nn.Linear(n_embd, n_embd, bias=False)
        self.proj = nn.Linear(n_embd, n_embd)

    def by_head(self, y: torch.Tensor) -> torch.Tensor:
        """(B, T, C) -> (B, n_head, T, hs)."""
        return y.unflatten(-1, (self.n_head, -1)).transpose(1, 2)

    def attend(
        self, x: torch.Tensor, memory: torch.Tensor, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries from x (B, T, C), keys and values from memory (B, S, C).

        Returns the output (B, T, C) and the weights (B, n_head, T, S). `mask`, boolean, broadcasts to the
        weights' shape; True = may attend to.
        """
        q, k, v = self.query(x), self.key(memory), self.value(memory)  # (B, T, C), (B, S, C), (B, S, C)
        out, wei = attention(self.by_head(q), self.by_head(k), self.by_head(v), mask)
        return self.proj(out.transpose(1, 2).flatten(2)), wei  # (B, n_head, T, hs) -> (B, T, C)

    def forward(
        self, x: torch.Tensor, memory: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B, T, C), (B, S, C) -> (B, T, C)."""
        return self.attend(x, memory, mask)[0]


def padding_mask(idx: torch.Tensor) -> torch.Tensor:
    """The positions that may be attended to: ids (B, S) -> (B, 1, 1, S), boolean, False at padding.

    The first position is always True: the softmax of a row of nothing but padding would be NaN.
    """
    mask = idx != PAD  # (B, S)
    mask[:, 0] = True
    return mask[:, None, None]


class EncoderBlock(nn.Module):
    """Chapter 10's block without the causal mask: every token attends to all those that `mask` shows."""

    def __init__(self, n_embd: int, n_head: int):
        super().__init__()
        self.sa, self.ffwd = Attention(n_embd, n_head), WideFeedForward(n_embd)
        self.ln1, self.ln2 = nn.LayerNorm(n_embd), nn.LayerNorm(n_embd)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, T, C), a mask that broadcasts to (B, n_head, T, T) -> (B, T, C)."""
        normed = self.ln1(x)
        x = x + self.sa(normed, normed, mask)  # (B, T, C) + (B, T, C)
        return x + self.ffwd(self.ln2(x))


def sinusoids(T: int, n_embd: int) -> torch.Tensor:
    """The paper's positions, (T, n_embd): sines and cosines from fast to slow (Vaswani et al. 2017, 3.5).

    Raises ValueError for an odd n_embd.
    """
    if n_embd % 2:
        raise ValueError(f"n_embd is {n_embd}; expected an even number, as sines and cosines come in pairs")
    position = torch.arange(T)[:, None]  # (T, 1)
    frequency = 10_000 ** (-torch.arange(0, n_embd, 2) / n_embd)  # (C / 2,)
    angle = position * frequency  # (T, 1) * (C / 2,) -> (T, C / 2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)  # (T, C / 2, 2) -> (T, C)


class Embeddings(nn.Module):
    """Token embeddings plus the paper's positions, which are not learned."""

    def __init__(self, vocab_size: int, block_size: int, n_embd: int):
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, n_embd)
        self.register_buffer("positions", sinusoids(block_size, n_embd), persistent=False)

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        """Ids (B, T) -> (B, T, n_embd); ValueError unless idx is (B, T), T from 1 to block_size."""
        longest = len(self.positions)
        if idx.dim() != 2 or not 1 <= idx.shape[1] <= longest:
            shape = tuple(idx.shape)
            raise ValueError(f"ids of shape {shape}; expected (B, T) with T from 1 to block_size = {longest}")
        return self.tokens(idx) + self.positions[: idx.shape[1]]  # (B, T, C) + (T, C)


@dataclass(frozen=True)
class TranslatorConfig:
    """The sizes of an encoder and a decoder that fit each other."""

    src_vocab_size: int  # distinct tokens of the sources
    tgt_vocab_size: int  # distinct tokens of the targets
    block_size: int = 64  # the longest source, and the longest target
    n_embd: int = 64  # C, channels
    n_head: int = 4  # heads of n_embd / n_head channels in each attention
    n_layer: int = 2  # blocks in the encoder, and as many in the decoder


class Encoder(nn.Module):
    """Reads: each token of a source attends to all others, block after block."""

    def __init__(self, config: TranslatorConfig):
        super().__init__()
        self.embed = Embeddings(config.src_vocab_size, config.block_size, config.n_embd)
        self.blocks = nn.ModuleList(EncoderBlock(config.n_embd, config.n_head) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(config.n_embd)

    def mask(self, src: torch.Tensor) -> torch.Tensor:
        """The positions that each token of ids (B, S) may attend to, as `padding_mask` gives them."""
        return padding_mask(src)  # (B, 1, 1, S)

    def forward(self, src: torch.Tensor) -> torch.Tensor:
        """Ids (B, S) -> the memory, which a decoder can ask: (B, S, n_embd)."""
        x, mask = self.embed(src), self.mask(src)  # (B, S, C), (B, 1, 1, S)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)


class DecoderBlock(nn.Module):
    """A causal block that also asks the memory, if there is one (Vaswani et al. 2017, figure 1, right)."""

    def __init__(self, n_embd: int, n_head: int):
        super().__init__()
        self.sa, self.ffwd = Attention(n_embd, n_head), WideFeedForward(n_embd)
        self.ln1, self.ln2 = nn.LayerNorm(n_embd), nn.LayerNorm(n_embd)
        self.ca = Attention(n_embd, n_head)
        self.ln3 = nn.LayerNorm(n_embd)

    def forward(
        self, x: torch.Tensor, memory: torch.Tensor | None = None, memory_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B, T, C), memory (B, S, C), its mask (B, 1, 1, S) -> (B, T, C)."""
        normed = self.ln1(x)
        x = x + self.sa(normed, normed, causal_mask(x.shape[1]).to(x.device))  # looks back
        if memory is not None:
            x = x + self.ca(self.ln3(x), memory, memory_mask)  # looks across
        return x + self.ffwd(self.ln2(x))


class Decoder(nn.Module):
    """Writes: each token attends to its own past and, if there is a memory, to the whole of it."""

    def __init__(self, config: TranslatorConfig):
        super().__init__()
        self.embed = Embeddings(config.tgt_vocab_size, config.block_size, config.n_embd)
        self.blocks = nn.ModuleList(DecoderBlock(config.n_embd, config.n_head) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(config.n_embd)
        self.lm_head = nn.Linear(config.n_embd, config.tgt_vocab_size)

    def forward(
        self, idx: torch.Tensor, memory: torch.Tensor | None = None, memory_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Ids (B, T), memory (B, S, C), its mask (B, 1, 1, S) -> logits (B, T, tgt_vocab_size)."""
        x = self.embed(idx)  # (B, T) -> (B, T, C)
        for block in self.blocks:
            x = block(x, memory, memory_mask)
        return self.lm_head(self.norm(x))


class EncoderDecoder(nn.Module):
    """The Transformer of Vaswani et al. 2017, norms first: it reads a source and writes a target."""

    def __init__(self, config: TranslatorConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)

    def forward(self, src: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
        """Sources (B, S) and prefixes of targets (B, T) -> logits of the next tokens (B, T, vocab)."""
        if len(src) != len(idx):
            raise ValueError(f"{len(src)} sources, {len(idx)} targets; expected a target for each source")
        return self.decoder(idx, self.encoder(src), padding_mask(src))


def translation_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean loss over the targets that aren't padding: logits (B, T, vocab), ids (B, T) -> nats per token.

    The loss is 0 if all targets are padding.
    """
    total = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=PAD, reduction="sum")
    return total / (targets != PAD).sum().clamp(min=1)
