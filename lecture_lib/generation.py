"""Generate text token by token.

From notebooks/06_single_head.ipynb, section "6. Further: choosing the next token".
Video 1:19:11.
Written by `lecture promote`: edit the notebook, not this file.

Fan et al. 2018: https://arxiv.org/abs/1805.04833
Holtzman et al. 2020: https://arxiv.org/abs/1904.09751
"""

import math

import torch
from torch.nn import functional as F

from lecture_lib.language_model import LanguageModel

__all__ = ["AutoregressiveModel", "check_prompt", "likeliest", "next_token", "nucleus"]


def likeliest(logits: torch.Tensor, top_k: int) -> torch.Tensor:
    """Logits (B, vocab_size) with -inf for all but each row's `top_k` likeliest tokens (Fan et al. 2018).

    Tokens that tie with the last of them stay, too. Raises ValueError unless 1 <= top_k <= vocab_size.
    """
    vocab_size = logits.shape[-1]
    if not 1 <= top_k <= vocab_size:
        raise ValueError(f"top_k is {top_k}; expected 1 to {vocab_size}, the size of the vocabulary, or None")
    kth = logits.topk(top_k, dim=-1).values[:, -1:]  # (B, 1): the smallest logit that stays
    return logits.masked_fill(logits < kth, float("-inf"))


def nucleus(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """Logits (B, vocab_size) with -inf for all but the fewest tokens that together are as likely as `top_p`.

    The likeliest come first, and the one that reaches `top_p` stays in (Holtzman et al. 2020, 3.1).
    Raises ValueError unless 0 < top_p <= 1.
    """
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}; expected a share of the probability above 0, at most 1")
    probs, order = F.softmax(logits, dim=-1).sort(dim=-1, descending=True, stable=True)
    likelier = probs.cumsum(dim=-1) - probs  # (B, vocab_size): the share of those before
    left_out = (likelier >= top_p).scatter(-1, order, likelier >= top_p)  # back in the vocabulary's order
    return logits.masked_fill(left_out, float("-inf"))


def next_token(
    logits: torch.Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> torch.Tensor:
    """Draw a token for each row of logits: (B, vocab_size) -> (B, 1), int64.

    A `temperature` below 1 sharpens the distribution, one above 1 flattens it. With `top_p`, only the
    `nucleus` can be drawn from; with `top_k`, only the `likeliest`. Draws from torch's global generator.
    Raises ValueError unless temperature is positive and finite, 1 <= top_k <= vocab_size, and 0 < top_p <= 1.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature}; expected a positive number, 1 for the model's own")
    logits = logits / temperature  # (B, vocab_size)
    if top_p is not None:
        logits = nucleus(logits, top_p)
    if top_k is not None:
        logits = likeliest(logits, top_k)
    return torch.multinomial(F.softmax(logits, dim=-1), num_samples=1)


def check_prompt(idx: torch.Tensor, max_new_tokens: int) -> None:
    """Raise ValueError unless idx is (B, T) with at least one token a row, and max_new_tokens at least 0."""
    if idx.dim() != 2:
        raise ValueError(f"idx has shape {tuple(idx.shape)}; expected two dimensions, (B, T)")
    if idx.shape[-1] == 0:
        raise ValueError("idx has rows of 0 tokens; expected at least one to continue")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; expected 0 or more")


class AutoregressiveModel(LanguageModel):
    """A language model that continues a text, one token at a time (video 1:19:11)."""

    @torch.no_grad()
    def generate(
        self,
        idx: torch.Tensor,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> torch.Tensor:
        """Append sampled tokens to every row: (B, T) -> (B, T + max_new_tokens), int64.

        The model is shown at most the last `block_size` tokens; each next one is drawn by `next_token`,
        whose ValueErrors it raises, and those of `check_prompt`.
        """
        check_prompt(idx, max_new_tokens)
        for _ in range(max_new_tokens):
            logits, _ = self(idx[:, -self.block_size :])  # (B, T) -> (B, min(T, block_size), vocab_size)
            idx_next = next_token(logits[:, -1], temperature, top_k, top_p)  # (B, vocab_size) -> (B, 1)
            idx = torch.cat([idx, idx_next], dim=1)  # (B, T), (B, 1) -> (B, T + 1)
        return idx
