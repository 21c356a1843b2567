"""Key-value cache.

From notebooks/13_nanogpt.ipynb, section "3. The model".
Video 1:46:22.
Written by `lecture promote`: edit the notebook, not this file.
"""

import torch

from lecture_lib.self_attention import causal_mask

__all__ = ["KVCache", "check_padding", "left_padded", "mask_after", "positions_after"]


class KVCache:
    """Keys and values of the tokens that one layer has read, with room for `block_size` of them.

    `keys` and `values` are (B, n_head, block_size, hs), of `like`'s dtype and device; the first `length`
    positions are in use.
    """

    def __init__(self, B: int, n_head: int, block_size: int, hs: int, like: torch.Tensor):
        self.keys, self.values = (like.new_empty(B, n_head, block_size, hs) for _ in range(2))
        self.length = 0

    def extend(self, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Append (B, n_head, T, hs) each; return all so far, (B, n_head, length, hs) each, as views.

        Raises ValueError if they don't fit in.
        """
        start, end = self.length, self.length + k.shape[2]
        B, n_head, room, hs = self.keys.shape
        if end > room or k.shape != (B, n_head, end - start, hs):
            fits = f"({B}, {n_head}, T, {hs}) with T at most {room - start}, the room that is left"
            raise ValueError(f"k has shape {tuple(k.shape)}; expected {fits}")
        self.keys[:, :, start:end], self.values[:, :, start:end] = k, v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def clear(self) -> None:
        """Forget all tokens."""
        self.length = 0


def positions_after(seen: int, T: int, pad: torch.Tensor) -> torch.Tensor:
    """Positions of T new tokens that follow `seen` columns: (B, T), counted from each row's first token.

    `pad` (B,) is the number of columns on the left of each row that are padding.
    """
    columns = torch.arange(seen, seen + T, device=pad.device)  # (T,)
    return (columns - pad[:, None]).clamp(min=0)  # (T,) - (B, 1) -> (B, T)


def mask_after(seen: int, T: int, pad: torch.Tensor) -> torch.Tensor:
    """Which keys each of T new tokens may attend to: (B, 1, T, seen + T), the same for all heads.

    Its own past, without the padding; padding attends to itself, since a softmax over nothing is undefined.
    """
    past = causal_mask(seen + T)[seen:].to(pad.device)  # (T, seen + T)
    own = torch.eye(seen + T, dtype=torch.bool, device=pad.device)[seen:]  # (T, seen + T)
    token = torch.arange(seen + T, device=pad.device) >= pad[:, None]  # (B, seen + T)
    return (past & token[:, None] | own)[:, None]  # (T, seen + T) & (B, 1, seen + T) -> (B, 1, T, seen + T)


def check_padding(pad: torch.Tensor, B: int, T: int) -> None:
    """Raise ValueError unless `pad`, (B,), has numbers from 0 to T - 1: each row needs a token of its own."""
    if pad.shape != (B,) or not ((pad >= 0) & (pad < T)).all():
        raise ValueError(f"pad is {pad.tolist()}; expected {B} numbers from 0 to {T - 1}, one for each row")


def left_padded(prompts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts of any lengths as rows that end together: ids (B, T), zeros on the left, and `pad` (B,).

    T is the longest one's length, `pad` the number of zeros in each row. ValueError for an empty prompt.
    """
    lengths = [len(prompt) for prompt in prompts]
    if not lengths or min(lengths) == 0:
        raise ValueError(
            f"the prompts have {lengths} tokens; expected at least one prompt, none of them empty"
        )
    T = max(lengths)
    rows = [[0] * (T - len(prompt)) + prompt for prompt in prompts]
    return torch.tensor(rows), T - torch.tensor(lengths)
