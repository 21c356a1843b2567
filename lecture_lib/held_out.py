"""Held-out text: plays and parts of plays.

From notebooks/16_counts.ipynb, section "2. Held out as it will be tested".
Video 1:56:20.
Written by `lecture promote`: edit the notebook, not this file.
"""

import torch

from lecture_lib.base.corpus import play_spans
from lecture_lib.batches import draw_places

__all__ = ["dev_start", "draw_with_parts", "parts_of_play", "play_parts"]


def dev_start(text: str, n_train: int) -> int:
    """Where to cut the training split, the first `n_train` characters: as far into a play as `val` begins."""
    plays = play_spans(text)
    known = n_train - plays["The Taming of the Shrew"].start  # characters
    return plays["Measure for Measure"].start + known


def parts_of_play(length: int, i: int) -> torch.Tensor:
    """The part of each character of play i, (length,): 2 i in its first third, 2 i + 1 in the rest."""
    return 2 * i + (torch.arange(length) >= length // 3)


def play_parts(text: str) -> torch.Tensor:
    """The part of each character of the corpus, (N,)."""
    spans = play_spans(text).values()
    return torch.cat([parts_of_play(play.stop - play.start, i) for i, play in enumerate(spans)])


def draw_with_parts(
    text: torch.Tensor, parts: torch.Tensor, batch_size: int, block_size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random chunks of a text and its parts, (N,) each: inputs, targets, the targets' parts, (B, T) each."""
    places = draw_places(len(text), batch_size, block_size)  # (B, T)
    return text[places], text[places + 1], parts[places + 1]
