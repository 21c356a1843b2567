"""Train a translator and let it translate.

From notebooks/12b_translation.ipynb.
Video 1:42:39.
Written by `lecture promote`: edit the notebook, not this file.
"""

import math
import sys
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from lecture_lib.encoder_decoder import EncoderDecoder, padding_mask, translation_loss
from lecture_lib.sequences import END, PAD, START
from lecture_lib.training import History, eval_mode

__all__ = [
    "TranslationHistory",
    "TranslationPairs",
    "beam_search",
    "evaluate_pairs",
    "rate_share",
    "train_translator",
    "translate",
    "trim_padding",
]


def trim_padding(rows: torch.Tensor) -> torch.Tensor:
    """Rows (B, T) without the columns on the right that hold only padding."""
    return rows[:, : (rows != PAD).sum(dim=1).max()]


class TranslationPairs:
    """Sources (N, S) and their translations (N, T + 1), sorted by the lengths of the sources."""

    def __init__(self, src: torch.Tensor, tgt: torch.Tensor):
        order = (src != PAD).sum(dim=1).argsort(stable=True)  # (N,)
        self.src, self.tgt = src[order], tgt[order]

    def rows(self, which: torch.Tensor | slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Some rows of both, without the padding that all of them share."""
        return trim_padding(self.src[which]), trim_padding(self.tgt[which])

    def draw(self, batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A random batch of neighbours: `batch_size` of the 16 times as many pairs around a random one."""
        window = min(16 * batch_size, len(self.src))
        middle = torch.randint(len(self.src), ()).item()
        first = min(max(middle - window // 2, 0), len(self.src) - window)
        return self.rows(first + torch.randperm(window)[:batch_size])


@torch.no_grad()
def evaluate_pairs(model: nn.Module, pairs: TranslationPairs) -> tuple[float, torch.Tensor]:
    """Loss in nats per token; and for each pair, (N,), whether greedy decoding would write its target."""
    device, total, tokens, right = next(model.parameters()).device, 0.0, 0, []
    with eval_mode(model):
        for rows in torch.arange(len(pairs.src)).split(128):
            src, tgt = (ids.to(device) for ids in pairs.rows(rows))  # (B, S), (B, T + 1)
            logits, targets = model(src, tgt[:, :-1]), tgt[:, 1:]  # (B, T, vocab), (B, T)
            real = targets != PAD  # (B, T)
            total += translation_loss(logits, targets).item() * real.sum().item()
            tokens += real.sum().item()
            right.append(((logits.argmax(dim=-1) == targets) | ~real).all(dim=1).cpu())  # (B,)
    return total / tokens, torch.cat(right)


def rate_share(step: int, max_iters: int) -> float:
    """The learning rate at an optimizer step, as a share of the highest: up for 100 steps, down to 0."""
    return min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / max_iters))


@dataclass
class TranslationHistory(History):
    """A `History` that also holds the share of validation pairs that were translated exactly."""

    exact: list[float] = field(default_factory=list)
    test_exact: float | None = None  # of the test pairs, once, at the end


def train_translator(
    model: nn.Module,
    splits: dict[str, TranslationPairs],
    batch_size: int,
    max_iters: int,
    learning_rate: float,
) -> TranslationHistory:
    """Train `model(src, idx) -> logits` in place, by teacher forcing; print ten evaluations on the way.

    `splits` has "train" and "val". The loss "train" is measured on as many training pairs as "val" has.
    """
    device, history = next(model.parameters()).device, TranslationHistory()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), fused=True)
    every = max(1, len(splits["train"].src) // len(splits["val"].src))
    seen = TranslationPairs(splits["train"].src[::every], splits["train"].tgt[::every])
    for step in tqdm(range(max_iters + 1), file=sys.stdout, leave=False):
        if step % max(1, max_iters // 10) == 0 or step == max_iters:
            loss, right = evaluate_pairs(model, splits["val"])
            history.add(step, {"train": evaluate_pairs(model, seen)[0], "val": loss})
            history.exact.append(right.float().mean().item())
            losses = f"train loss {history.train[-1]:.4f}, val loss {loss:.4f}"
            tqdm.write(f"step {step:5}: {losses}, exact {history.exact[-1]:.1%}")
        src, tgt = (ids.to(device) for ids in splits["train"].draw(batch_size))  # (B, S), (B, T + 1)
        loss = translation_loss(model(src, tgt[:, :-1]), tgt[:, 1:])
        optimizer.param_groups[0]["lr"] = learning_rate * rate_share(step, max_iters)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return history


@torch.no_grad()
def translate(model: EncoderDecoder, src: torch.Tensor) -> torch.Tensor:
    """Greedy decoding, always the likeliest token: sources (B, S) -> ids (B, T), from <start> on.

    After its <end> a row is padding; one that never ends is block_size + 1 long.
    """
    memory, memory_mask = model.encoder(src), padding_mask(src)  # (B, S, C), (B, 1, 1, S)
    idx = torch.full((len(src), 1), START, device=src.device)  # (B, 1)
    ended = torch.zeros(len(src), dtype=torch.bool, device=src.device)  # (B,)
    while idx.shape[1] <= model.config.block_size and not ended.all():
        logits = model.decoder(idx, memory, memory_mask)[:, -1]  # (B, T, vocab) -> (B, vocab)
        idx_next = logits.argmax(dim=-1).masked_fill(ended, PAD)  # (B,)
        idx = torch.cat([idx, idx_next[:, None]], dim=1)  # (B, T), (B, 1) -> (B, T + 1)
        ended |= idx_next == END
    return idx


@torch.no_grad()
def beam_search(model: EncoderDecoder, src: torch.Tensor, beam_width: int) -> list[tuple[list[int], float]]:
    """The likeliest translations found for one source (1, S): ids and log probability in nats, best first.

    At most `beam_width`; with 1 it is greedy decoding. ValueError for several sources or a width below 1.
    """
    if len(src) != 1 or beam_width < 1:
        given = f"{len(src)} sources, beam_width {beam_width}"
        raise ValueError(f"{given}; expected 1 source and a width of at least 1")
    memory, memory_mask = model.encoder(src), padding_mask(src)  # (1, S, C), (1, 1, 1, S)
    idx = torch.full((1, 1), START, device=src.device)  # (W, T): the W prefixes that are kept
    scores = torch.zeros(1, device=src.device)  # (W,): log probability of each
    ended = torch.zeros(1, dtype=torch.bool, device=src.device)  # (W,)
    while idx.shape[1] <= model.config.block_size and not ended.all():
        many = memory.expand(len(idx), -1, -1)  # (1, S, C) -> (W, S, C)
        steps = F.log_softmax(model.decoder(idx, many, memory_mask)[:, -1], dim=-1)  # (W, vocab)
        steps[ended] = float("-inf")  # a text that has ended goes on with padding, free of charge
        steps[ended, PAD] = 0.0
        totals = scores[:, None] + steps  # (W, 1) + (W, vocab)
        scores, best = totals.flatten().topk(min(beam_width, totals.numel()))
        row, token = best // totals.shape[1], best % totals.shape[1]  # (W,), (W,)
        idx = torch.cat([idx[row], token[:, None]], dim=1)  # (W, T), (W, 1) -> (W, T + 1)
        ended = ended[row] | (token == END)
    found = zip(idx.tolist(), scores.tolist(), strict=True)
    return [(ids, score) for ids, score in found if score > float("-inf")]
