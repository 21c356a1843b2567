"""The speedrun.

From notebooks/16c_speedrun.ipynb.
Video 1:56:20.
Written by `lecture promote`: edit the notebook, not this file.

Gemma Team 2024: https://arxiv.org/abs/2408.00118
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
from lecture_lib.held_out import draw_with_parts
from lecture_lib.language_model import with_loss
from lecture_lib.modern_block import ModernBlock, rms_norm
from lecture_lib.muon import Muon
from lecture_lib.tokenization import load_splits

__all__ = [
    "INGREDIENTS",
    "NETWORK_CLASS",
    "NgramEmbedding",
    "SpeedrunConfig",
    "SpeedrunGPT",
    "SpeedrunTraining",
    "make_optimizers",
    "recounted_speedrun",
    "soft_capped",
    "speedrun",
    "trapezoid",
]


def soft_capped(logits: torch.Tensor, cap: float = 15.0) -> torch.Tensor:
    """Logits of any shape, bent so that none exceeds `cap` in size (Gemma Team 2024, section 2)."""
    return cap * torch.tanh(logits / cap)


class NgramEmbedding(nn.Module):
    """A learned vector, zero at first, for each n-gram of 2 to `longest` tokens; some share a row."""

    ROWS = 65_521  # of each table: a prime, so that every token of an n-gram matters to the remainder

    def __init__(self, vocab_size: int, longest: int, n_embd: int):
        super().__init__()
        self.vocab_size, self.n_embd = vocab_size, n_embd
        self.tables = nn.ModuleList(
            nn.Embedding(self.ROWS, n_embd, sparse=True) for _ in range(2, longest + 1)
        )
        for table in self.tables:
            nn.init.zeros_(table.weight)

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        """The sum of the vectors of the n-grams that end there: ids (B, T) -> (B, T, n_embd)."""
        total = torch.zeros(*idx.shape, self.n_embd, device=idx.device)  # (B, T, C)
        for n, table in enumerate(self.tables, start=2):
            total = total + table(context_ids(idx, n, self.vocab_size) % self.ROWS)  # (B, T) -> (B, T, C)
        return total


INGREDIENTS = {  # what the tables call it: its field of SpeedrunConfig
    "counts of the text": "count_text",
    "counts of the page": "count_page",
    "leaving the part out": "leave_part_out",
    "counts as input": "counts_as_input",
    "trust by place": "trust_by_place",
    "rotary positions": "rotary",
    "QK-norm": "qk_norm",
    "squared ReLU": "squared_relu",
    "zero start": "zero_start",
    "soft cap": "soft_cap",
}
NETWORK_CLASS = {"count_text": False, "leave_part_out": False, "counts_as_input": False}


@dataclass(frozen=True)
class SpeedrunConfig(GPTConfig):
    """What the speedrun's model is made of, and which of its ingredients are in."""

    block_size: int = 256
    n_layer: int = 3
    order: int = 7  # characters of context in the longest counts
    ngrams: int = 1  # characters in the longest n-grams that have vectors of their own
    noise: float = 0.1  # share of the characters that the network, while training, reads wrongly
    count_text: bool = True
    count_page: bool = True
    leave_part_out: bool = True  # of the text's counts, while training
    counts_as_input: bool = True
    trust_by_place: bool = True
    rotary: bool = True  # False: a learned vector for each position
    qk_norm: bool = True
    squared_relu: bool = True
    zero_start: bool = True
    soft_cap: bool = True

    def __post_init__(self):
        super().__post_init__()
        self.check_share("noise")


class SpeedrunGPT(AutoregressiveModel):
    """A GPT of modern blocks that corrects what counts predict.

    `text`, (N,), holds the ids of the training split: they are counted here. `parts`, (N,), numbers the parts
    that they are in; only training needs them.
    """

    def __init__(self, config: SpeedrunConfig, text: torch.Tensor, parts: torch.Tensor | None = None):
        def make_body() -> nn.Module:
            choices = config.rotary, config.qk_norm, config.squared_relu, config.zero_start
            return nn.Sequential(*(ModernBlock(config, *choices) for _ in range(config.n_layer)))

        V, C = config.vocab_size, config.n_embd
        # The frame's table and head are drawn, then dropped: a seed gives the weights that the records had.
        super().__init__(V, config.block_size, C, make_body)
        self.config = config
        if config.rotary:
            self.position_embedding_table = None
        counted, left_out = text if config.count_text else None, parts if config.leave_part_out else None
        self.prior = CountedPrior(V, config.order, counted, left_out, page=config.count_page)
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
        if self.config.counts_as_input:
            hints = F.layer_norm(log_probs.detach(), log_probs.shape[-1:])  # (B, T, vocab_size)
            x = x + self.hint(hints)
        return rms_norm(self.body(self.dropout(rms_norm(x))))

    def forward(
        self, idx: torch.Tensor, targets: torch.Tensor | None = None, parts: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Ids (B, T) -> logits (B, T, vocab_size) and the loss in nats per token, None without targets.

        `parts` (B, T): the parts of the text that the next tokens are in, if it was counted.
        """
        log_probs = self.prior(idx, parts if self.prior.part_tables else None)  # (B, T, vocab_size)
        x = self.features(idx, log_probs)  # (B, T, C)
        logits = self.lm_head(x)  # (B, T, vocab_size)
        if self.config.soft_cap:
            logits = soft_capped(logits)
        trust = self.trust(x) if self.config.trust_by_place else self.trust.bias  # (B, T, 1) or (1,)
        return with_loss(logits + trust * log_probs, targets)


@dataclass(frozen=True)
class SpeedrunTraining:
    """How a speedrun trains its model."""

    batch_size: int = 8  # B, sequences in an optimizer step
    max_iters: int = 1200  # optimizer steps
    adam_rate: float = 4e-3  # learning rate of Adam
    counts_rate: float = 0.1  # the same for discounts and weights of the counts
    muon_rate: float = 0.02  # learning rate of Muon, for the matrices of the blocks; 0: Adam has them too
    rising: float = 0.05  # share of the steps in which the rates rise, from near 0
    falling: float = 0.5  # share of the steps in which they fall, to 0


def make_optimizers(model: SpeedrunGPT, training: SpeedrunTraining) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, if it has a rate, and Adam for everything else."""
    matrices = list(model.body.parameters()) if training.muon_rate else []
    counts, ngrams = list(model.prior.parameters()), list(model.ngrams.parameters())
    chosen = {id(p) for p in (*matrices, *counts, *ngrams)}
    others = [p for p in model.parameters() if id(p) not in chosen]
    groups = [{"params": others}, {"params": counts, "lr": training.counts_rate}]
    optimizers = [torch.optim.Adam(groups, lr=training.adam_rate, betas=(0.8, 0.95), fused=True)]
    if matrices:
        optimizers.append(Muon(matrices, lr=training.muon_rate))
    if ngrams:  # a step reads few of their rows, and changes no others
        optimizers.append(torch.optim.SparseAdam(ngrams, lr=training.adam_rate, betas=(0.8, 0.95)))
    return optimizers


def trapezoid(step: int, training: SpeedrunTraining) -> float:
    """The share of the learning rate at a step, 0 to max_iters - 1: up, level, and down to 0 at max_iters."""
    up = (step + 1) / (training.rising * training.max_iters)
    down = (training.max_iters - step) / (training.falling * training.max_iters) if training.falling else 1.0
    return min(up, 1.0, down)


def speedrun(model: SpeedrunGPT, text: torch.Tensor, parts: torch.Tensor, training: SpeedrunTraining) -> list:
    """Train `model` on `text` and `parts`, (N,), by PyTorch's generator; returns the losses."""
    optimizers = make_optimizers(model.train(), training)
    schedules = [LambdaLR(optimizer, partial(trapezoid, training=training)) for optimizer in optimizers]
    losses = []
    for _ in tqdm(range(training.max_iters), unit="step", leave=False):
        _, loss = model(*draw_with_parts(text, parts, training.batch_size, model.block_size))
        model.zero_grad()
        loss.backward()
        for stepper in (*optimizers, *schedules):
            stepper.step()
        losses.append(loss.item())
    return losses


@checkpoint_kind("SpeedrunGPT", SpeedrunConfig)
def recounted_speedrun(config: SpeedrunConfig) -> SpeedrunGPT:
    """The model to load a checkpoint's weights into; its counts, which aren't stored, are made again."""
    return SpeedrunGPT(config, load_splits()[1]["train"])
