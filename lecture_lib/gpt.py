"""Scaling up: the GPT.

From notebooks/11_gpt.ipynb.
Video 1:37:49.
Written by `lecture promote`: edit the notebook, not this file.

Vaswani et al. 2017: https://arxiv.org/abs/1706.03762
Radford et al. 2019: https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from lecture_lib.checkpoint import checkpoint_kind
from lecture_lib.generation import AutoregressiveModel
from lecture_lib.layer_norm import Block
from lecture_lib.residual import ProjectedAttention, WideFeedForward
from lecture_lib.self_attention import Head

__all__ = ["GPT", "DropoutHead", "GPTConfig", "decoder_block", "initialise", "pathway_writers"]


@dataclass(frozen=True)
class GPTConfig:
    """What a GPT is made of; the defaults are the lecture's small run for a CPU (video 1:37:49)."""

    vocab_size: int = 65  # distinct tokens
    block_size: int = 32  # T, the longest context
    n_embd: int = 64  # C, channels of the residual stream
    n_head: int = 4  # heads of n_embd / n_head channels in each block
    n_layer: int = 4  # blocks
    dropout: float = 0.0  # share of numbers zeroed while training

    def __post_init__(self):
        for name in ("vocab_size", "block_size", "n_embd", "n_head", "n_layer"):
            size = getattr(self, name)
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{name} is {size!r}; expected a whole number of at least 1")
        if self.n_embd % self.n_head:
            sizes = f"n_embd is {self.n_embd}, n_head is {self.n_head}"
            raise ValueError(f"{sizes}; expected n_head to divide n_embd")
        self.check_share("dropout")

    def check_share(self, name: str) -> None:
        """Raise ValueError unless the field called `name` is a share: from 0 up to, not including, 1."""
        share = getattr(self, name)
        if not 0 <= share < 1:
            raise ValueError(f"{name} is {share}; expected a share from 0 up to, not including, 1")


class DropoutHead(Head):
    """A causal head that drops some of its attention weights at random in training (video 1:37:49)."""

    def __init__(self, n_embd: int, head_size: int, block_size: int, dropout: float):
        super().__init__(n_embd, head_size, block_size)
        self.dropout = nn.Dropout(dropout)


def decoder_block(config: GPTConfig) -> Block:
    """A block with dropout on the attention weights and on what each part adds to the residual stream."""
    make_head = partial(DropoutHead, dropout=config.dropout)
    attention = ProjectedAttention(config.n_embd, config.n_head, config.block_size, make_head=make_head)
    sa = nn.Sequential(attention, nn.Dropout(config.dropout))
    ffwd = nn.Sequential(WideFeedForward(config.n_embd), nn.Dropout(config.dropout))
    return Block(config.n_embd, sa, ffwd)


@checkpoint_kind("GPT", GPTConfig)
class GPT(AutoregressiveModel):
    """The lecture's decoder-only Transformer (video 1:37:49; Vaswani et al. 2017; Radford et al. 2019)."""

    def __init__(self, config: GPTConfig):
        def make_body() -> nn.Module:
            blocks = (decoder_block(config) for _ in range(config.n_layer))
            return nn.Sequential(*blocks, nn.LayerNorm(config.n_embd))

        super().__init__(config.vocab_size, config.block_size, config.n_embd, make_body)
        self.config = config


def pathway_writers(model: nn.Module) -> list[nn.Linear]:
    """The layers that write to the residual stream: the last linear layer of both parts of each block."""
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    parts = [part for block in blocks for part in (block.sa, block.ffwd)]
    return [[layer for layer in part.modules() if isinstance(layer, nn.Linear)][-1] for part in parts]


@torch.no_grad()
def initialise(model: AutoregressiveModel, std: float = 0.02) -> AutoregressiveModel:
    """Draw the weights of `model` again, as GPT-2 does, and return it.

    Weights come from a normal distribution with standard deviation `std`, biases are 0. In the layers that
    write to the residual stream, two per block, `std` is divided by the square root of their number (Radford
    et al. 2019, 2.3; the 0.02 is from GPT-2's code).
    """
    writers = pathway_writers(model)
    narrow = {id(layer.weight) for layer in writers}
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            width = std / math.sqrt(len(writers)) if id(parameter) in narrow else std
            nn.init.normal_(parameter, mean=0.0, std=width)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    return model
