"""The speedrun.

Video 1:56:20.
Promoted from notebooks/16c_speedrun.ipynb by `lecture promote`: edit the notebook, not this file.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from lecture_lib.checkpoint import checkpoint_kind
from lecture_lib.counts import CountedPrior, context_ids
from lecture_lib.generation import AutoregressiveModel
from lecture_lib.gpt import GPTConfig
from lecture_lib.held_out import draw
from lecture_lib.modern_block import ModernBlock, unit
from lecture_lib.muon import Muon
from lecture_lib.tokenization import load_splits

__all__ = [
    "INGREDIENTS",
    "NETWORK_CLASS",
    "NgramEmbedding",
    "NoPositions",
    "Race",
    "SpeedrunConfig",
    "SpeedrunGPT",
    "make_optimizers",
    "recounted_speedrun",
    "soft_capped",
    "speedrun",
    "trapezoid",
]


def soft_capped(logits: torch.Tensor, cap: float = 15.0) -> torch.Tensor:
    """Logits of any shape, bent so that none exceeds `cap` in size (Gemma Team 2024, section 2)."""
    return cap * torch.tanh(logits / cap)


INGREDIENTS = (
    "counts of the text",
    "counts of the page",
    "leaving the part out",
    "counts as input",
    "trust by place",
    "rotary positions",
    "QK-norm",
    "squared ReLU",
    "zero start",
    "soft cap",
)
NETWORK_CLASS = ("counts of the text", "leaving the part out", "counts as input")  # what it does without


@dataclass(frozen=True)
class SpeedrunConfig(GPTConfig):
    """What the speedrun's model is made of."""

    block_size: int = 256
    n_layer: int = 3
    order: int = 7  # characters of context in the longest counts
    ngrams: int = 1  # characters in the longest n-grams that have vectors of their own
    noise: float = 0.1  # share of the characters that the network, while training, reads wrongly
    without: tuple[str, ...] = ()  # of INGREDIENTS

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.noise < 1:
            raise ValueError(f"noise is {self.noise}; expected a share from 0 up to, not including, 1")
        if unknown := set(self.without) - set(INGREDIENTS):
            raise ValueError(f"without has {sorted(unknown)}; expected some of: {', '.join(INGREDIENTS)}")

    def has(self, ingredient: str) -> bool:
        """Whether the ingredient is in."""
        return ingredient not in self.without


class NoPositions(nn.Module):
    """Takes the place of a table of positions where attention itself tells them."""

    def forward(self, places: torch.Tensor) -> torch.Tensor:
        """Places (T,) -> zeros (T, 1)."""
        return torch.zeros(len(places), 1, device=places.device)


class NgramEmbedding(nn.Module):
    """A learned vector, zero at first, for each n-gram of 2 to `longest` tokens; some share a row."""

    ROWS = 65_521  # of each table: a prime, so that every token of an n-gram matters to the remainder

    def __init__(self, vocab_size: int, longest: int, n_embd: int):
        super().__init__()
        self.vocab_size = vocab_size
        tables = (nn.Embedding(self.ROWS, n_embd, sparse=True) for _ in range(2, longest + 1))
        self.tables = nn.ModuleList(tables)
        for table in self.tables:
            nn.init.zeros_(table.weight)

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        """The sum of the vectors of the n-grams that end there: ids (B, T) -> (B, T, n_embd), or 0."""
        ids = (context_ids(idx, n, self.vocab_size) for n in range(2, len(self.tables) + 2))  # (B, T) each
        return sum(table(number % self.ROWS) for table, number in zip(self.tables, ids, strict=True))


class SpeedrunGPT(AutoregressiveModel):
    """A GPT of modern blocks that corrects what counts foretell.

    `text`, (N,), holds the ids of the training split: they are counted here. `parts`, (N,), numbers the parts
    that they are in; only training needs them.
    """

    def __init__(self, config: SpeedrunConfig, text: torch.Tensor, parts: torch.Tensor | None = None):
        def make_body() -> nn.Module:
            return nn.Sequential(*(ModernBlock(config, config.without) for _ in range(config.n_layer)))

        V, C = config.vocab_size, config.n_embd
        super().__init__(V, config.block_size, C, make_body)
        self.config = config
        if config.has("rotary positions"):
            self.position_embedding_table = NoPositions()
        self.prior = CountedPrior(
            V,
            config.order,
            text if config.has("counts of the text") else None,
            parts if config.has("counts of the text") and config.has("leaving the part out") else None,
            config.has("counts of the page"),
        )
        self.hint = nn.Linear(V, C, bias=False)  # counts as input
        self.ngrams = NgramEmbedding(V, config.ngrams, C)
        self.dropout = nn.Dropout(config.dropout)
        self.lm_head, self.trust = nn.Linear(C, V, bias=False), nn.Linear(C, 1)
        for weights in (self.lm_head.weight, self.trust.weight):
            nn.init.zeros_(weights)
        nn.init.ones_(self.trust.bias)

    def noised(self, idx: torch.Tensor) -> torch.Tensor:
        """Ids (B, T), while training some of them replaced by random ones: (B, T)."""
        if not (self.training and self.config.noise):
            return idx
        wrong = torch.rand(idx.shape, device=idx.device) < self.config.noise
        return torch.randint_like(idx, self.config.vocab_size).where(wrong, idx)

    def features(self, idx: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
        """What the network makes of ids (B, T) and the counts' (B, T, vocab_size): (B, T, n_embd)."""
        read = self.noised(idx)
        x = self.embed(read) + self.ngrams(read)  # (B, T) -> (B, T, C)
        if self.config.has("counts as input"):
            hints = F.layer_norm(log_probs.detach(), log_probs.shape[-1:])  # (B, T, vocab_size)
            x = x + self.hint(hints)
        return unit(self.body(self.dropout(unit(x))))

    def forward(
        self, idx: torch.Tensor, targets: torch.Tensor | None = None, parts: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Ids (B, T) -> logits (B, T, vocab_size) and the loss in nats per token, None without targets.

        `parts` (B, T): the parts of the text that the next tokens are in, if it was counted.
        """
        log_probs = self.prior(idx, parts if self.prior.part_tables else None)  # (B, T, vocab_size)
        x = self.features(idx, log_probs)  # (B, T, C)
        logits = self.lm_head(x)  # (B, T, vocab_size)
        if self.config.has("soft cap"):
            logits = soft_capped(logits)
        trust = self.trust(x) if self.config.has("trust by place") else self.trust.bias  # (B, T, 1) or (1,)
        logits = logits + trust * log_probs
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())


@dataclass(frozen=True)
class Race:
    """How a speedrun trains."""

    batch_size: int = 8  # B, sequences in an optimizer step
    max_iters: int = 1200  # optimizer steps
    adam_rate: float = 4e-3  # learning rate of Adam
    counts_rate: float = 0.1  # the same for discounts and weights of the counts
    muon_rate: float = 0.02  # learning rate of Muon, for the matrices of the blocks; 0: Adam has them too
    rising: float = 0.05  # share of the steps in which the rates rise, from near 0
    falling: float = 0.5  # share of the steps in which they fall, to 0


def make_optimizers(model: SpeedrunGPT, race: Race) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, if it has a rate, and Adam for all else."""
    matrices = list(model.body.parameters()) if race.muon_rate else []
    counts, ngrams = list(model.prior.parameters()), list(model.ngrams.parameters())
    chosen = {id(p) for p in (*matrices, *counts, *ngrams)}
    others = [p for p in model.parameters() if id(p) not in chosen]
    groups = [{"params": others}, {"params": counts, "lr": race.counts_rate}]
    optimizers = [torch.optim.Adam(groups, lr=race.adam_rate, betas=(0.8, 0.95), fused=True)]
    if matrices:
        optimizers.append(Muon(matrices, lr=race.muon_rate))
    if ngrams:  # of whose rows a step reads few, and changes no others
        optimizers.append(torch.optim.SparseAdam(ngrams, lr=race.adam_rate, betas=(0.8, 0.95)))
    return optimizers


def trapezoid(step: int, race: Race) -> float:
    """The share of the learning rate at a step, 0 to max_iters - 1: up, level, and down to 0 at max_iters."""
    up = (step + 1) / (race.rising * race.max_iters)
    down = (race.max_iters - step) / (race.falling * race.max_iters) if race.falling else 1.0
    return min(up, 1.0, down)


def speedrun(model: SpeedrunGPT, text: torch.Tensor, parts: torch.Tensor, race: Race) -> list[float]:
    """Train `model` on `text` and `parts`, (N,), by torch's generator; returns the losses."""
    optimizers = make_optimizers(model.train(), race)
    schedules = [LambdaLR(optimizer, partial(trapezoid, race=race)) for optimizer in optimizers]
    losses = []
    for _ in tqdm(range(race.max_iters), unit="step", leave=False):
        _, loss = model(*draw(text, parts, race.batch_size, model.block_size))
        model.zero_grad(set_to_none=True)
        loss.backward()
        for stepper in (*optimizers, *schedules):
            stepper.step()
        losses.append(loss.item())
    return losses


@checkpoint_kind("SpeedrunGPT", SpeedrunConfig)
def recounted_speedrun(config: SpeedrunConfig) -> SpeedrunGPT:
    """The model to load a checkpoint's weights into: what isn't stored, the counts, it makes again."""
    return SpeedrunGPT(config, load_splits()[1]["train"])
