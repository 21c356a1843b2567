"""Marks and padding for texts of unequal length.

From notebooks/12_encoder_decoder.ipynb, section "2. Start, end, padding".
Video 1:42:39.
Written by `lecture promote`: edit the notebook, not this file.
"""

from collections.abc import Iterable

import torch
from torch import nn

from lecture_lib.tokenization import CharTokenizer

__all__ = ["END", "PAD", "START", "MarkedTokenizer", "encode_sources", "encode_targets", "padded"]

PAD, START, END = 0, 1, 2  # the ids of <pad>, <start> and <end>, in every vocabulary


class MarkedTokenizer(CharTokenizer):
    """A `CharTokenizer` whose first ids stand for <pad>, <start> and <end>; `encode` never produces them."""

    def vocabulary(self, text: str) -> list[str]:
        """Return the three marks, then the distinct characters of `text`, sorted."""
        return ["<pad>", "<start>", "<end>", *super().vocabulary(text)]

    def decode(self, ids: Iterable[int] | torch.Tensor) -> str:
        """The text of `ids`, integers or (N,), up to the first <end>; the other marks are dropped."""
        ids = ids.tolist() if isinstance(ids, torch.Tensor) else list(ids)
        until = ids.index(END) if END in ids else len(ids)
        return super().decode(i for i in ids[:until] if i not in (PAD, START))


def padded(rows: list[list[int]]) -> torch.Tensor:
    """Rows of ids, of any lengths, as one tensor (B, longest), padded on the right with PAD.

    Raises ValueError if there are no rows.
    """
    if not rows:
        raise ValueError("there are no rows; expected at least one")
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=PAD)


def encode_sources(tokenizer: MarkedTokenizer, texts: list[str]) -> torch.Tensor:
    """Texts as an encoder reads them, (B, S): characters, <end>, padding. ValueError for an empty text."""
    if "" in texts:
        raise ValueError(f"text {texts.index('')} is empty; expected at least one character")
    return padded([[*tokenizer.encode(text), END] for text in texts])


def encode_targets(tokenizer: MarkedTokenizer, texts: list[str]) -> torch.Tensor:
    """Texts as a decoder writes them, (B, T + 1): <start>, characters, <end>, padding."""
    return padded([[START, *tokenizer.encode(text), END] for text in texts])
