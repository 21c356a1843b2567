"""The counts return.

Video 1:56:20.
Promoted from notebooks/16_speedrun.ipynb by `lecture promote`: edit the notebook, not this file.
"""

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["ContextCounts", "CountedPrior", "context_ids", "interpolated"]


def context_ids(idx: torch.Tensor, n: int, vocab_size: int) -> torch.Tensor:
    """The last n tokens at each place, as one number: (B, T) -> (B, T), int64; -1 where there are fewer."""
    T = idx.shape[1]
    digits = (F.pad(idx, (back, 0))[:, :T] * vocab_size**back for back in range(n))  # (B, T) each
    ids = sum(digits)
    ids[:, : n - 1] = -1
    return ids


class ContextCounts(nn.Module):
    """How often each token follows each context of `n` tokens in a text of ids, (N,)."""

    def __init__(self, text: torch.Tensor, n: int, vocab_size: int):
        super().__init__()
        ids = context_ids(text[None, :-1], n, vocab_size)[0, n - 1 :]  # (N - n,)
        known, rows = ids.unique(return_inverse=True)  # (U,) sorted, (N - n,)
        counts = torch.zeros(len(known) + 1, vocab_size)  # the last row: contexts that never occur
        counts.index_put_((rows, text[n:]), torch.ones(len(rows)), accumulate=True)
        self.n, self.vocab_size = n, vocab_size
        self.register_buffer("known", known, persistent=False)
        self.register_buffer("counts", counts, persistent=False)

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        """The counts of what follows each place of ids (B, T): (B, T, vocab_size)."""
        ids = context_ids(idx, self.n, self.vocab_size)
        row = torch.searchsorted(self.known, ids).clamp(max=len(self.known) - 1)  # (B, T)
        return self.counts[row.where(self.known[row] == ids, len(self.known))]


def interpolated(counts: torch.Tensor, discounts: torch.Tensor, lower: torch.Tensor) -> torch.Tensor:
    """Discounted counts (..., vocab_size), what is taken given to `lower` (..., vocab_size): probabilities.

    `discounts` (4,), each at most the count it is taken from: of counts of 1, 2, 3 and more (Chen and
    Goodman 1999, 3). Where all counts are 0, `lower` itself.
    """
    taken = F.pad(discounts, (1, 0))[counts.clamp(max=4).long()]  # (..., vocab_size)
    total = counts.sum(dim=-1, keepdim=True)  # (..., 1)
    mixed = (counts - taken + taken.sum(dim=-1, keepdim=True) * lower) / total.clamp(min=1)
    return mixed.where(total > 0, lower)


class CountedPrior(nn.Module):
    """What the last `order` tokens foretell: counts of a text, their discounts learned."""

    def __init__(self, text: torch.Tensor, order: int, vocab_size: int):
        super().__init__()
        single = torch.bincount(text, minlength=vocab_size) + 1.0
        self.register_buffer("single", single / single.sum(), persistent=False)
        self.tables = nn.ModuleList(ContextCounts(text, n, vocab_size) for n in range(1, order + 1))
        self.discounts = nn.Parameter(torch.zeros(order, 4))  # through a sigmoid: shares of 1, 2, 3 and 4

    def forward(self, idx: torch.Tensor, left_out: torch.Tensor | None = None) -> torch.Tensor:
        """Ids (B, T) -> log-probabilities of the next token, (B, T, vocab_size).

        `left_out` (B, T): the tokens that follow, if `idx` is a piece of the counted text; each place's own
        occurrence then doesn't count.
        """
        own = 0 if left_out is None else F.one_hot(left_out, len(self.single))  # (B, T, vocab_size)
        probs = self.single  # (vocab_size,)
        for table, share in zip(self.tables, self.discounts.sigmoid(), strict=True):
            discounts = share * torch.arange(1, 5, device=share.device)  # (4,)
            probs = interpolated((table(idx) - own).clamp(min=0), discounts, probs)
        return probs.log()
