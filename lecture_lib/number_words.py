"""Numbers as French and English words.

From notebooks/12b_translation.ipynb, section "1. Number words".
Video 1:42:39.
Written by `lecture promote`: edit the notebook, not this file.
"""

import torch
from num2words import num2words

__all__ = ["LARGEST_NUMBER", "number_words", "split_numbers"]

LARGEST_NUMBER = 999_999  # the largest number that the course puts into words


def number_words(n: int, language: str) -> str:
    """`n` in words, as num2words writes it.

    Raises ValueError unless language is "fr" or "en", and n a whole number from 0 to LARGEST_NUMBER.
    """
    if language not in ("fr", "en"):
        raise ValueError(f"language is {language!r}; expected 'fr' or 'en'")
    if not isinstance(n, int) or not 0 <= n <= LARGEST_NUMBER:
        raise ValueError(f"n is {n!r}; expected a whole number from 0 to {LARGEST_NUMBER:,}")
    return num2words(n, lang=language)


def split_numbers(below: int, n_train: int, n_val: int, n_test: int, seed: int) -> dict[str, list[int]]:
    """Distinct whole numbers below `below`: `val` and `test` drawn evenly, `train` with more small ones.

    Half of `train`, or as many as are left, is below a tenth of `below`.
    Raises ValueError unless all sizes are at least 1 and sum to at most `below`.
    """
    sizes = {"n_train": n_train, "n_val": n_val, "n_test": n_test}
    if min(sizes.values()) < 1 or sum(sizes.values()) > below:
        raise ValueError(f"{sizes}; expected sizes of at least 1 that sum to at most below = {below}")
    numbers = torch.randperm(below, generator=torch.Generator().manual_seed(seed)).tolist()
    test, val, rest = numbers[:n_test], numbers[n_test : n_test + n_val], numbers[n_test + n_val :]
    small = [n for n in rest if n < below // 10][: n_train // 2]
    taken = set(small)
    others = [n for n in rest if n not in taken][: n_train - len(small)]
    return {"train": small + others, "val": val, "test": test}
