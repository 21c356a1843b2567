"""A single head.

From notebooks/06_single_head.ipynb, section "7. `generate` for all later models".
Video 1:19:11.
Written by `lecture promote`: edit the notebook, not this file.
"""

from lecture_lib.generation import AutoregressiveModel
from lecture_lib.self_attention import Head

__all__ = ["SingleHeadModel"]


class SingleHeadModel(AutoregressiveModel):
    """One head of self-attention, as wide as the embedding, between embeddings and logits (video 1:19:11)."""

    def __init__(self, vocab_size: int, block_size: int, n_embd: int):
        super().__init__(vocab_size, block_size, n_embd, lambda: Head(n_embd, n_embd, block_size))
