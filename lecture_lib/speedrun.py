"""The speedrun.

Video 1:56:20.
Promoted from notebooks/16_speedrun.ipynb by `lecture promote`: edit the notebook, not this file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from lecture_lib.batches import get_batch
from lecture_lib.counts import CountedPrior
from lecture_lib.gpt import GPTConfig
from lecture_lib.modern_block import ModernBlock, unit
from lecture_lib.muon import Muon
from lecture_lib.single_head import AutoregressiveModel
from lecture_lib.training import eval_mode

__all__ = [
    "INGREDIENTS",
    "Race",
    "SpeedrunConfig",
    "SpeedrunGPT",
    "blocks",
    "make_optimizers",
    "soft_capped",
    "speedrun",
    "split_loss",
    "strided_loss",
    "trapezoid",
    "variants",
]


def blocks(ids: torch.Tensor, block_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Inputs and targets (B, T) that score every id but the first once, at most 32 rows at a time."""
    xs, ys = ids[:-1].split(block_size), ids[1:].split(block_size)  # blocks of (T,), the last may be shorter
    whole = (len(ids) - 1) // block_size
    for i in range(0, whole, 32):
        rows = slice(i, min(i + 32, whole))
        yield torch.stack(xs[rows]), torch.stack(ys[rows])  # (B, T) each
    if whole < len(xs):
        yield xs[-1][None], ys[-1][None]  # (1, what is left) each


@torch.no_grad()
def split_loss(model: nn.Module, ids: torch.Tensor) -> float:
    """The loss in nats per token over all of `ids`, (N,), in consecutive blocks of the model's block_size."""
    total = 0.0
    with eval_mode(model):
        for xb, yb in blocks(ids, model.block_size):
            total += model(xb, yb)[1].item() * yb.numel()
    return total / (len(ids) - 1)


def soft_capped(logits: torch.Tensor, cap: float = 15.0) -> torch.Tensor:
    """Logits of any shape, bent so that none exceeds `cap` in size (Gemma Team 2024, section 2)."""
    return cap * torch.tanh(logits / cap)


INGREDIENTS = (
    "counts",
    "leaving one out",
    "rotary positions",
    "QK-norm",
    "squared ReLU",
    "zero start",
    "soft cap",
)


@dataclass(frozen=True)
class SpeedrunConfig(GPTConfig):
    """What the speedrun's model is made of."""

    block_size: int = 256
    n_embd: int = 128
    order: int = 5  # characters of context in the longest counts
    without: tuple[str, ...] = ()  # of INGREDIENTS

    def __post_init__(self):
        super().__post_init__()
        if unknown := set(self.without) - set(INGREDIENTS):
            raise ValueError(f"without has {sorted(unknown)}; expected some of: {', '.join(INGREDIENTS)}")

    def has(self, ingredient: str) -> bool:
        """Whether the ingredient is in."""
        return ingredient not in self.without


class SpeedrunGPT(AutoregressiveModel):
    """A GPT of modern blocks that corrects what counts of the training text foretell.

    `text`, (N,), holds the ids of the training split: they are counted here, and while the model trains,
    every place that it's shown must be a piece of them.
    """

    def __init__(self, config: SpeedrunConfig, text: torch.Tensor):
        def make_body() -> nn.Module:
            return nn.Sequential(*(ModernBlock(config, config.without) for _ in range(config.n_layer)))

        V, C = config.vocab_size, config.n_embd
        super().__init__(V, config.block_size, C, make_body)
        self.config = config
        self.lm_head = nn.Linear(C, V, bias=False)
        nn.init.zeros_(self.lm_head.weight)
        if config.has("rotary positions"):
            self.position_embedding_table = None
        self.dropout = nn.Dropout(config.dropout)
        self.prior = CountedPrior(text, config.order, V) if config.has("counts") else None
        self.trust = nn.Parameter(torch.ones(()))  # in the counts

    def embed(self, idx: torch.Tensor) -> torch.Tensor:
        """Embeddings of ids, without positions if those are rotary: (B, T) -> (B, T, n_embd)."""
        T = idx.shape[1]
        if self.block_size < T:
            raise ValueError(f"idx has rows of {T} tokens; expected at most block_size = {self.block_size}")
        x = self.token_embedding_table(idx)  # (B, T) -> (B, T, C)
        if self.position_embedding_table is not None:
            x = x + self.position_embedding_table(torch.arange(T, device=idx.device))
        return self.dropout(unit(x))

    def forward(
        self, idx: torch.Tensor, targets: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Ids (B, T) -> logits (B, T, vocab_size) and the loss in nats per token, None without targets."""
        logits = self.lm_head(unit(self.body(self.embed(idx))))  # (B, T) -> (B, T, vocab_size)
        if self.config.has("soft cap"):
            logits = soft_capped(logits)
        if self.prior is not None:
            leave_out = self.training and self.config.has("leaving one out")
            logits = logits + self.trust * self.prior(idx, targets if leave_out else None)
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())


@dataclass(frozen=True)
class Race:
    """How a speedrun trains."""

    batch_size: int = 8  # B, sequences in an optimizer step
    max_iters: int = 150  # optimizer steps
    adam_rate: float = 1e-2  # learning rate of Adam
    muon_rate: float = 0.0  # learning rate of Muon, for the matrices of the blocks; 0: Adam has them too
    rising: float = 0.1  # share of the steps in which the rates rise, from near 0
    falling: float = 0.5  # share of the steps in which they fall, to 0


def make_optimizers(model: SpeedrunGPT, race: Race) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, if it has a rate, and Adam for all else."""
    matrices = list(model.body.parameters()) if race.muon_rate else []
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    adam = torch.optim.Adam(others, lr=race.adam_rate, betas=(0.8, 0.95), fused=True)
    return [adam, Muon(matrices, lr=race.muon_rate)] if matrices else [adam]


def trapezoid(step: int, race: Race) -> float:
    """The share of the learning rate at a step, 0 to max_iters - 1: up, level, and down to 0 at max_iters."""
    up = (step + 1) / (race.rising * race.max_iters)
    down = (race.max_iters - step) / (race.falling * race.max_iters) if race.falling else 1.0
    return min(up, 1.0, down)


def speedrun(model: SpeedrunGPT, text: torch.Tensor, race: Race) -> list[float]:
    """Train `model` on the `text`, (N,), it has counted; draws from torch's generator; returns the losses."""
    optimizers = make_optimizers(model.train(), race)
    schedules = [LambdaLR(optimizer, partial(trapezoid, race=race)) for optimizer in optimizers]
    losses = []
    for _ in tqdm(range(race.max_iters), unit="step", leave=False):
        _, loss = model(*get_batch({"train": text}, "train", race.batch_size, model.block_size))
        model.zero_grad(set_to_none=True)
        loss.backward()
        for part in (*optimizers, *schedules):
            part.step()
        losses.append(loss.item())
    return losses


def variants() -> dict[str, tuple[SpeedrunConfig, Race]]:
    """The recipe, and changes of one thing: name -> model and training."""
    left_out = {f"without {name}": (SpeedrunConfig(without=(name,)), Race()) for name in INGREDIENTS}
    return {
        "the recipe": (SpeedrunConfig(), Race()),
        **left_out,
        "without a falling rate": (SpeedrunConfig(), Race(falling=0.0)),
        "with a batch of 32": (SpeedrunConfig(), Race(batch_size=32)),
        "with dropout 0.1": (SpeedrunConfig(dropout=0.1), Race()),
        "with Muon": (SpeedrunConfig(), Race(muon_rate=0.02)),
        "without counts, with Muon": (SpeedrunConfig(without=("counts",)), Race(muon_rate=0.02)),
    }


@torch.no_grad()
def strided_loss(model: nn.Module, ids: torch.Tensor, stride: int) -> float:
    """The loss over `ids`, (N,), in windows of block_size that overlap: of each only the new tokens count.

    So every token after the first window is predicted from at least block_size - stride others.
    """
    size, total, done = model.block_size, 0.0, 0
    if not 1 <= stride <= size:
        raise ValueError(f"stride is {stride}; expected 1 to block_size = {size}")
    with eval_mode(model):
        for end in [*range(size, len(ids) - 1, stride), len(ids) - 1]:
            logits, _ = model(ids[None, max(0, end - size) : end])  # (1, T) -> (1, T, vocab_size)
            total += F.cross_entropy(logits[0, done - end :], ids[done + 1 : end + 1], reduction="sum").item()
            done = end
    return total / done
