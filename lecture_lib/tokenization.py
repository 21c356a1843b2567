"""Tokenization: text into numbers, and back.

From notebooks/01_tokenization.ipynb.
Video 7:52, 9:28.
Written by `lecture promote`: edit the notebook, not this file.
"""

from collections.abc import Iterable

import torch

from lecture_lib.base.corpus import load_corpus

__all__ = ["CharTokenizer", "load_splits", "split_data"]


class CharTokenizer:
    """Numbers the distinct characters of a text, and translates strings to ids and back (video 9:28).

    The vocabulary is the sorted distinct characters of `text`, so the same characters always get the same
    ids: `CharTokenizer("".join(tokenizer.chars))` is the same tokenizer. ValueError for an empty text.

    Attributes: `chars`, the characters in order; `vocab_size`, how many there are; `stoi` and `itos`, from
    character to id and back. Ids run from 0 to vocab_size - 1.
    """

    def __init__(self, text: str):
        if not text:
            raise ValueError("the text is empty; expected at least one character")
        self.chars = self.vocabulary(text)
        self.vocab_size = len(self.chars)
        self.stoi = {c: i for i, c in enumerate(self.chars)}
        self.itos = dict(enumerate(self.chars))

    def vocabulary(self, text: str) -> list[str]:
        """Return the distinct characters of `text`, sorted: the position of each is its id."""
        return sorted(set(text))

    def encode(self, text: str) -> list[int]:
        """Return one id for each character; ValueError for a character outside the vocabulary."""
        try:
            return [self.stoi[c] for c in text]
        except KeyError:
            position, c = next((p, c) for p, c in enumerate(text) if c not in self.stoi)
            known = repr("".join(self.chars))
            raise ValueError(f"unknown character {c!r} at position {position}; known are {known}") from None

    def decode(self, ids: Iterable[int] | torch.Tensor) -> str:
        """Return the text of `ids`, integers or a tensor of shape (N,); ValueError for an unknown id."""
        if isinstance(ids, torch.Tensor) and ids.dim() != 1:
            raise ValueError(f"the ids have shape {tuple(ids.shape)}; expected one row, shape (N,)")
        ids = ids.tolist() if isinstance(ids, torch.Tensor) else list(ids)
        try:
            return "".join([self.itos[i] for i in ids])
        except KeyError:
            position, i = next((p, i) for p, i in enumerate(ids) if i not in self.itos)
            raise ValueError(
                f"unknown id {i} at position {position}; expected 0 to {self.vocab_size - 1}"
            ) from None


def split_data(ids: torch.Tensor, fraction: float = 0.9) -> dict[str, torch.Tensor]:
    """Cut token ids, shape (N,), in two: `train`, the first int(fraction * N), and `val`, the rest.

    Both are views of `ids` (video 9:28). Raises ValueError unless 0 < fraction < 1 and both
    parts hold at least one id.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction is {fraction}; expected a number between 0 and 1, both excluded")
    n = int(fraction * len(ids))
    if not 0 < n < len(ids):
        raise ValueError(f"{len(ids)} ids at fraction {fraction} leave a split empty; expected more ids")
    return {"train": ids[:n], "val": ids[n:]}


def load_splits() -> tuple[CharTokenizer, dict[str, torch.Tensor]]:
    """Tiny Shakespeare's tokenizer and the two splits of its ids, 1-D and int64 (video 9:28)."""
    text = load_corpus()
    tokenizer = CharTokenizer(text)
    return tokenizer, split_data(torch.tensor(tokenizer.encode(text)))
