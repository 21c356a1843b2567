"""Learning-rate schedule and weight-decay groups.

From notebooks/13c_trainer.ipynb, section "2. The recipe".
Video 1:46:22.
Written by `lecture promote`: edit the notebook, not this file.

Loshchilov and Hutter 2017: https://arxiv.org/abs/1608.03983
"""

import math

from torch import nn

__all__ = ["warmup_cosine", "weight_decay_groups"]


def weight_decay_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups of parameters for an optimizer: matrices, which decay, and vectors, which don't.

    Each trainable parameter is in one of them, once, even if two layers share it.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]  # a shared one is listed once
    matrices = [p for p in trainable if p.dim() >= 2]  # linear layers and embeddings
    vectors = [p for p in trainable if p.dim() < 2]  # biases, gains and shifts of norms
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def warmup_cosine(step: int, learning_rate: float, min_lr: float, warmup_iters: int, max_iters: int) -> float:
    """The learning rate of step 0 to max_iters - 1: up in a straight line, down along half a cosine.

    The last of the `warmup_iters` steps has `learning_rate`, the last step of all has `min_lr`
    (Loshchilov and Hutter 2017, with a warm-up before it).
    """
    if step < warmup_iters:
        return learning_rate * (step + 1) / warmup_iters
    done = (step + 1 - warmup_iters) / (max_iters - warmup_iters)  # 1 at the last step
    return min_lr + (learning_rate - min_lr) * (1 + math.cos(math.pi * done)) / 2
