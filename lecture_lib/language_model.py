"""The frame of every language model.

From notebooks/05_self_attention.ipynb, section "6. A head in a language model".
Video 58:26, 1:00:18, 1:02:00.
Written by `lecture promote`: edit the notebook, not this file.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["LanguageModel", "with_loss"]


def with_loss(logits: torch.Tensor, targets: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Logits (B, T, vocab_size) and their loss in nats per token against targets (B, T), None without."""
    if targets is None:
        return logits, None
    return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())  # (B*T, vocab_size), (B*T,)


class LanguageModel(nn.Module):
    """Embeddings, a body and an output layer: the frame of the later models (video 58:26, 1:00:18).

    `make_body()` is called once and returns the module between the embeddings and the output layer `lm_head`,
    (B, T, n_embd) to (B, T, n_embd). Parameters are created in the lecture's order: tokens, positions, body,
    `lm_head`. In a later model `lm_head` has no bias.
    """

    def __init__(
        self,
        vocab_size: int,
        block_size: int,
        n_embd: int,
        make_body: Callable[[], nn.Module],
        head_bias: bool = True,
    ):
        super().__init__()
        self.block_size = block_size
        self.token_embedding_table = nn.Embedding(vocab_size, n_embd)
        self.position_embedding_table = nn.Embedding(block_size, n_embd)
        self.body = make_body()
        self.lm_head = nn.Linear(n_embd, vocab_size, bias=head_bias)

    def embed(self, idx: torch.Tensor) -> torch.Tensor:
        """Token embeddings of ids, plus those of their positions: (B, T) -> (B, T, n_embd).

        Raises TypeError for ids that aren't integers, ValueError unless idx is (B, T), T <= block_size.
        """
        if idx.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"idx has dtype {idx.dtype}; expected token ids, torch.int64 or torch.int32")
        if idx.dim() != 2:
            raise ValueError(f"idx has shape {tuple(idx.shape)}; expected two dimensions, (B, T)")
        T = idx.shape[1]
        if self.block_size < T:
            raise ValueError(f"idx has rows of {T} tokens; expected at most block_size = {self.block_size}")
        tok_emb = self.token_embedding_table(idx)  # (B, T) -> (B, T, C)
        if self.position_embedding_table is None:  # a later model's choice
            return tok_emb
        pos_emb = self.position_embedding_table(torch.arange(T, device=idx.device))  # (T,) -> (T, C)
        return tok_emb + pos_emb  # (B, T, C) + (T, C) -> (B, T, C)

    def forward(
        self, idx: torch.Tensor, targets: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Ids (B, T) -> logits (B, T, vocab_size) and the loss in nats per token, None without targets."""
        logits = self.lm_head(self.body(self.embed(idx)))  # (B, T, C) -> (B, T, vocab_size)
        return with_loss(logits, targets)
