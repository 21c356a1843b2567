"""Counts that learn.

From notebooks/16_counts.ipynb.
Video 1:56:20.
Written by `lecture promote`: edit the notebook, not this file.

Chen and Goodman 1999: https://doi.org/10.1006/csla.1999.0128
"""

import torch
from torch import nn
from torch.nn import functional as F

__all__ = [
    "ContextCounts",
    "CountedPrior",
    "check_fits_64_bits",
    "context_ids",
    "discounts_of",
    "interpolated",
    "page_counts",
]


def context_ids(idx: torch.Tensor, n: int, vocab_size: int) -> torch.Tensor:
    """The last n tokens at each place, as one number: (B, T) -> (B, T), int64; -1 where there are fewer."""
    check_fits_64_bits(vocab_size**n, n)
    T = idx.shape[1]
    digits = (F.pad(idx, (back, 0))[:, :T] * vocab_size**back for back in range(n))  # (B, T) each
    ids = sum(digits)
    ids[:, : n - 1] = -1
    return ids


def check_fits_64_bits(numbers: int, n: int) -> None:
    """Raises ValueError if so many different numbers, of contexts of n tokens, don't fit into 64 bits."""
    if numbers > 2**63:
        raise ValueError(f"order {n} makes {numbers:.1e} contexts; expected at most 9.2e+18, 2^63: lower it")


class ContextCounts(nn.Module):
    """How often each token follows each context of `n` tokens in a text of ids, (N,).

    With `parts`, (N,), which numbers the parts of the text from 0, each part has counts of its own: a place
    belongs to the part of the token that follows.
    """

    def __init__(self, text: torch.Tensor, n: int, vocab_size: int, parts: torch.Tensor | None = None):
        super().__init__()
        self.n, self.vocab_size = n, vocab_size
        contexts = context_ids(text[None, :-1], n, vocab_size)[0, n - 1 :]  # (N - n,)
        check_fits_64_bits(vocab_size**n * (1 if parts is None else int(parts.max()) + 1), n)
        ids = self.keys(contexts, None if parts is None else parts[n:])
        known, rows = ids.unique(return_inverse=True)  # (U,) sorted, (N - n,)
        counts = torch.zeros(len(known) + 1, vocab_size)  # the last row: contexts that never occur
        counts.index_put_((rows, text[n:]), torch.ones(len(rows)), accumulate=True)
        self.register_buffer("known", known, persistent=False)
        self.register_buffer("counts", counts, persistent=False)

    def keys(self, contexts: torch.Tensor, parts: torch.Tensor | None) -> torch.Tensor:
        """The numbers of contexts, of any shape, with their part as one more digit in front; -1 stays."""
        if parts is None:
            return contexts
        return contexts.where(contexts < 0, contexts + parts * self.vocab_size**self.n)

    def forward(self, contexts: torch.Tensor, parts: torch.Tensor | None = None) -> torch.Tensor:
        """The counts of what follows contexts (B, T) of `context_ids`, in their parts: (B, T, vocab_size)."""
        ids = self.keys(contexts, parts)
        row = torch.searchsorted(self.known, ids).clamp(max=len(self.known) - 1)  # (B, T)
        return self.counts[row.where(self.known[row] == ids, len(self.known))]


def discounts_of(counts: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """What is taken from counts of any shape; `shares` (4,): of counts of 1, 2, 3, and of 4 if more.

    Chen and Goodman 1999 compute three: for counts of 1, of 2, and of 3 or more.
    """
    levels = (counts == 1, counts == 2, counts == 3, counts > 3)
    return sum(
        k * share * level for k, (share, level) in enumerate(zip(shares, levels, strict=True), start=1)
    )


def interpolated(kept: torch.Tensor, taken: torch.Tensor, lower: torch.Tensor) -> torch.Tensor:
    """Counts as probabilities: `kept` (..., vocab_size), and `taken` (..., 1) of them shared out as `lower`.

    `lower` (..., vocab_size) are the probabilities after a shorter context; without counts they stand.
    """
    total = kept.sum(dim=-1, keepdim=True) + taken  # (..., 1)
    return ((kept + taken * lower) / total.clamp(min=1e-6)).where(total > 0, lower)


def page_counts(contexts: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """What followed each context, (B, T), earlier in the same row: counts (B, T, vocab_size).

    `contexts` are those of `context_ids`; `tokens` (B, T, vocab_size) is the row itself, one-hot.
    """
    same = contexts[:, :, None] == contexts[:, None, :]  # (B, T, T)
    earlier = (same & (contexts >= 0)[:, None, :]).tril(-1).float()  # row t: the places before t
    return earlier[:, :, :-1] @ tokens[:, 1:]  # (B, T, T - 1) @ (B, T - 1, vocab_size)


class CountedPrior(nn.Module):
    """What comes next, predicted from the last 1 to `order` tokens by counts of a text and of the page.

    `text` (N,) is what is counted; without it the page is all there is. `parts` (N,) numbers the parts of the
    text that can be left out. Without `page` the page doesn't count.
    """

    PAGE_SHARE = 0.1  # of the page's counts, given to shorter contexts

    def __init__(
        self,
        vocab_size: int,
        order: int,
        text: torch.Tensor | None = None,
        parts: torch.Tensor | None = None,
        page: bool = True,
    ):
        super().__init__()
        self.vocab_size, self.page = vocab_size, page
        single = torch.ones(vocab_size) if text is None else torch.bincount(text, minlength=vocab_size) + 1.0
        self.register_buffer("single", single / single.sum(), persistent=False)
        orders = () if text is None else range(1, order + 1)
        self.tables = nn.ModuleList(ContextCounts(text, n, vocab_size) for n in orders)
        part_orders = () if parts is None else orders
        self.part_tables = nn.ModuleList(ContextCounts(text, n, vocab_size, parts) for n in part_orders)
        self.discounts = nn.Parameter(torch.zeros(order, 4))  # through a sigmoid: shares of 1, 2, 3 and 4
        self.page_weights = nn.Parameter(torch.full((order,), 5.0))  # logs: of the page each counts e^5 times

    def text_counts(self, contexts: torch.Tensor, n: int, parts: torch.Tensor | None) -> torch.Tensor:
        """What followed contexts of n in the text, without the part that each place is in: (B, T, V)."""
        counts = self.tables[n - 1](contexts)
        return counts if parts is None else counts - self.part_tables[n - 1](contexts, parts)

    def evidence(
        self, tokens: torch.Tensor, contexts: torch.Tensor, n: int, parts: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What text and page keep of their counts after n tokens, (B, T, V), and what is taken, (B, T, 1)."""
        kept = taken = torch.zeros((), device=tokens.device)
        if self.tables:
            counts = self.text_counts(contexts, n, parts)  # (B, T, V)
            discounts = discounts_of(counts, self.discounts[n - 1].sigmoid())
            kept, taken = counts - discounts, discounts.sum(dim=-1, keepdim=True)
        if self.page:
            page = self.page_weights[n - 1].exp() * page_counts(contexts, tokens)  # (B, T, V)
            kept = kept + (1 - self.PAGE_SHARE) * page
            taken = taken + self.PAGE_SHARE * page.sum(dim=-1, keepdim=True)
        return kept, taken

    def forward(self, idx: torch.Tensor, parts: torch.Tensor | None = None) -> torch.Tensor:
        """Ids (B, T) -> log-probabilities of the next token, (B, T, vocab_size).

        `parts` (B, T): the parts of the text that the next tokens are from, to be left out of the counts.
        """
        probs = self.single.expand(*idx.shape, -1)  # (B, T, vocab_size)
        tokens = F.one_hot(idx, self.vocab_size).float()  # (B, T, vocab_size)
        for n in range(1, len(self.discounts) + 1):
            contexts = context_ids(idx, n, self.vocab_size)  # (B, T)
            probs = interpolated(*self.evidence(tokens, contexts, n, parts), lower=probs)
        return probs.log()
