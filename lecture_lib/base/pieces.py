"""Pieces of words as tokens: chapter 01b's byte-pair encoding, by Hugging Face's `tokenizers`."""

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import tokenizers
import torch
from tokenizers import Regex
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Split
from tokenizers.trainers import BpeTrainer

from .errors import CourseError

PATTERN = r" ?\w+| ?[^\w\s]+|\s+"  # what a text is cut into first; no merge reaches across
CHUNK = 2**20  # characters that are translated at a time
MOST_PIECES = 2**16


class Tokenizer(Protocol):
    """What translates between text and ids: chapter 01's `CharTokenizer`, or a `PieceTokenizer`."""

    chars: list[str]  # the characters that it knows, sorted
    vocab_size: int

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Iterable[int] | torch.Tensor) -> str: ...


class PieceTokenizer:
    """Translates between text and the ids of pieces of words, which `learn_pieces` finds (video 9:28).

    Attributes: `vocab_size`; `chars`, the single characters among the pieces, sorted; `stored`, all of it as
    a string, the library's own JSON, from which `PieceTokenizer(stored)` is the same again. Raises ValueError
    for another string.
    """

    def __init__(self, stored: str):
        try:
            self.bpe = tokenizers.Tokenizer.from_str(stored)
        except Exception as error:  # tokenizers has no kind of its own
            raise ValueError(f"not the pieces of a tokenizer: {error}") from None
        self.stored, self.vocab_size = stored, self.bpe.get_vocab_size()
        self.chars = sorted(piece for piece in self.bpe.get_vocab() if len(piece) == 1)

    def encode(self, text: str) -> list[int]:
        """The ids of the pieces that `text` consists of; ValueError for a character that no piece has."""
        if unknown := set(text) - set(self.chars):
            position = min(text.index(c) for c in unknown)
            known = repr("".join(self.chars))
            raise ValueError(
                f"unknown character {text[position]!r} at position {position}; known are {known}"
            )
        return [i for chunk in chunks(text) for i in self.bpe.encode(chunk).ids]

    def ids(self, text: str) -> np.ndarray:
        """The ids that `encode` gives, (N,), of the smallest type that holds them all."""
        dtype = np.min_scalar_type(self.vocab_size - 1)
        return np.concatenate([np.array(self.bpe.encode(chunk).ids, dtype) for chunk in chunks(text)])

    def decode(self, ids: Iterable[int] | torch.Tensor) -> str:
        """The text of `ids`, integers or a tensor of shape (N,); ValueError for an unknown id."""
        pieces = [(int(i), self.bpe.id_to_token(int(i))) for i in ids]
        for position, (i, piece) in enumerate(pieces):
            if piece is None:
                expected = f"expected 0 to {self.vocab_size - 1}"
                raise ValueError(f"unknown id {i} at position {position}; {expected}")
        return "".join(piece for _, piece in pieces)


def learn_pieces(text: str, alphabet: list[str], size: int) -> PieceTokenizer:
    """A tokenizer of `size` pieces, the `alphabet` included, or fewer if `text` has no more pairs to merge.

    `text` consists of characters of the alphabet. Raises CourseError for a size that leaves no room for a
    merge, or above MOST_PIECES.
    """
    if not len(alphabet) < size <= MOST_PIECES:
        raise CourseError(
            f"a vocabulary of {size:,} pieces; expected more than the {len(alphabet):,} single characters of "
            f"this text and at most {MOST_PIECES:,}, for instance {min(MOST_PIECES, 512 + len(alphabet)):,}"
        )
    bpe = tokenizers.Tokenizer(BPE())
    bpe.pre_tokenizer = Split(Regex(PATTERN), behavior="isolated")
    trainer = BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(chunks(text), trainer)
    return PieceTokenizer(bpe.to_str())


def chunks(text: str) -> Iterator[str]:
    """The text in slices, so that what is made of each takes little memory."""
    return (text[i : i + CHUNK] for i in range(0, len(text), CHUNK))
