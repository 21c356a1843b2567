"""Batches: chunks of text for the Transformer.

From notebooks/02_batches.ipynb, section "6. `get_batch`".
Video 14:27.
Written by `lecture promote`: edit the notebook, not this file.
"""

import torch

__all__ = ["draw_places", "get_batch"]


def draw_places(n: int, batch_size: int, block_size: int) -> torch.Tensor:
    """Positions of random chunks of a text of n ids: (batch_size, block_size), each row consecutive.

    The last position is never among them, so each has a next one. Draws once from torch's CPU generator.
    Raises ValueError for a size below 1, or a block_size that isn't below n.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1")
    if not 1 <= block_size < n:
        raise ValueError(f"block_size is {block_size}; expected 1 to {n - 1} for {n} ids")
    ix = torch.randint(n - block_size, (batch_size,))  # (B,)
    return ix[:, None] + torch.arange(block_size)  # (B, 1) + (T,) -> (B, T)


def get_batch(
    splits: dict[str, torch.Tensor],
    split: str,
    batch_size: int,
    block_size: int,
    device: str | torch.device = "cpu",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw random chunks of one split: inputs and, shifted by one, their targets (video 14:27).

    `splits[split]` holds token ids, shape (N,), on the CPU. Returns `xb` and `yb`, both
    (batch_size, block_size), on `device`. Draws once from torch's global CPU generator.
    Raises ValueError for an unknown split, a size below 1, or a split of fewer than block_size + 1 ids.
    """
    if split not in splits:
        raise ValueError(f"no split {split!r}; expected one of: {', '.join(splits)}")
    data = splits[split]
    positions = draw_places(len(data), batch_size, block_size)  # (B, T)
    return data[positions].to(device), data[positions + 1].to(device)
