"""DPO: the same without reinforcement.

Video 1:48:53.
Promoted from notebooks/14_chatgpt.ipynb by `lecture promote`: edit the notebook, not this file.
"""

import torch

from lecture_lib.fine_tuning import answer_log_probs, answer_mask
from lecture_lib.nanogpt import NanoGPT
from lecture_lib.reward_model import preference_loss

__all__ = ["answer_log_ratio", "dpo_loss"]


def answer_log_ratio(
    model: NanoGPT, prompts: torch.Tensor, answers: torch.Tensor, reference: torch.Tensor
) -> torch.Tensor:
    """log policy - log reference of whole answers: (B, P), (B, A) -> (B,).

    `reference`, (B,), is the reference's log-probability of each whole answer.
    """
    return (answer_log_probs(model, prompts, answers) * answer_mask(answers)).sum(dim=1) - reference


def dpo_loss(better: torch.Tensor, worse: torch.Tensor, beta: float) -> torch.Tensor:
    """Rafailov et al. 2023, equation 7: the preference loss, with beta * log(policy / reference) as reward.

    `better` and `worse` are log-ratios policy / reference of whole answers, of one shape. ln 2 at the start.
    """
    return preference_loss(beta * better, beta * worse)
