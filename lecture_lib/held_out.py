"""Held-out text: plays and parts of plays.

From notebooks/16_counts.ipynb, section "2. Held out as it will be tested".
Video 1:56:20.
Written by `lecture promote`: edit the notebook, not this file.
"""

import torch

from lecture_lib.base.corpus import play_spans
from lecture_lib.batches import draw_places

__all__ = ["dev_start", "draw_with_parts", "play_parts"]


def dev_start(text: str, n_train: int) -> int:
    """Where to cut the training split, the first `n_train` characters: as far into a play as `val` begins."""
    plays = play_spans(text)
    known = n_train - plays["The Taming of the Shrew"].start  # characters
    return plays["Measure for Measure"].start + known


def play_parts(text: str) -> torch.Tensor:
    """The part of each character of the corpus, (N,): 2 i the first third of play i, 2 i + 1 the rest."""
    parts = torch.empty(len(text), dtype=torch.int64)
    for i, play in enumerate(play_spans(text).values()):
        third = play.start + (play.stop - play.start) // 3
        parts[play.start : third], parts[third : play.stop] = 2 * i, 2 * i + 1
    return parts


def draw_with_parts(
    text: torch.Tensor, parts: torch.Tensor, batch_size: int, block_size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random chunks of a text and its parts, (N,) each: inputs, targets, the targets' parts, (B, T) each."""
    places = draw_places(len(text), batch_size, block_size)  # (B, T)
    return text[places], text[places + 1], parts[places + 1]
