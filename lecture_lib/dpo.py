"""Direct preference optimization (DPO).

From notebooks/14c_dpo.ipynb, section "1. From a reward to a policy, and back".
Video 1:48:53.
Written by `lecture promote`: edit the notebook, not this file.

Rafailov et al. 2023: https://arxiv.org/abs/2305.18290
"""

import torch

from lecture_lib.fine_tuning import answer_log_probs, answer_mask
from lecture_lib.nanogpt import NanoGPT
from lecture_lib.reward_model import preference_loss

__all__ = ["dpo_loss", "sequence_log_prob"]


def dpo_loss(better: torch.Tensor, worse: torch.Tensor, beta: float) -> torch.Tensor:
    """Rafailov et al. 2023, equation 7: the preference loss, with beta * log(policy / reference) as reward.

    `better` and `worse` are log-ratios policy / reference of whole answers, of one shape. It starts at ln 2.
    """
    return preference_loss(beta * better, beta * worse)


def sequence_log_prob(model: NanoGPT, prompts: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """The log-probability of each whole answer, in nats: (B, P), (B, A) -> (B,)."""
    return (answer_log_probs(model, prompts, answers) * answer_mask(answers)).sum(dim=1)
