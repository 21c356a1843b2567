"""Numbers as French and English words.

From notebooks/12_encoder_decoder.ipynb, section "1. Three machines".
Video 1:42:39.
Written by `lecture promote`: edit the notebook, not this file.
"""

import torch
from num2words import num2words

__all__ = ["LARGEST", "number_words", "split_numbers"]

LARGEST = 999_999  # what the course's number words go up to


def number_words(n: int, language: str) -> str:
    """`n` in words, as num2words writes it; ValueError unless language is "fr" or "en", n 0 to LARGEST."""
    if language not in ("fr", "en"):
        raise ValueError(f"language is {language!r}; expected 'fr' or 'en'")
    if not isinstance(n, int) or not 0 <= n <= LARGEST:
        raise ValueError(f"n is {n!r}; expected a whole number from 0 to {LARGEST:,}")
    return num2words(n, lang=language)


def split_numbers(below: int, n_train: int, n_val: int, n_test: int, seed: int) -> dict[str, list[int]]:
    """Whole numbers under `below`, none twice: `val` and `test` drawn evenly, `train` with more small ones.

    Half of `train`, or as many as are left, lies under a tenth of `below`.
    Raises ValueError unless all sizes are at least 1 and there are numbers enough.
    """
    sizes = {"n_train": n_train, "n_val": n_val, "n_test": n_test}
    if min(sizes.values()) < 1 or sum(sizes.values()) > below:
        raise ValueError(f"{sizes}; expected each at least 1, together at most below = {below}")
    numbers = torch.randperm(below, generator=torch.Generator().manual_seed(seed)).tolist()
    test, val, rest = numbers[:n_test], numbers[n_test : n_test + n_val], numbers[n_test + n_val :]
    small = [n for n in rest if n < below // 10][: n_train // 2]
    taken = set(small)
    others = [n for n in rest if n not in taken][: n_train - len(small)]
    return {"train": small + others, "val": val, "test": test}
