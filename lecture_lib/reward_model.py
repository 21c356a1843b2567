"""Reward model.

From notebooks/14_chatgpt.ipynb, section "6. Stage 2: the reward model".
Video 1:48:53.
Written by `lecture promote`: edit the notebook, not this file.
"""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from lecture_lib.fine_tuning import answer_mask
from lecture_lib.nanogpt import NanoGPT

__all__ = ["RewardModel", "chosen", "preference_loss"]


class RewardModel(nn.Module):
    """A GPT that ends in one number for a whole answer in place of logits (Ouyang et al. 2022, 3.5)."""

    def __init__(self, model: NanoGPT):
        super().__init__()
        self.gpt = copy.deepcopy(model).eval()
        self.gpt.lm_head = nn.Identity()
        self.head = nn.Linear(model.config.n_embd, 1)
        nn.init.zeros_(self.head.weight)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    def forward(self, prompts: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """(B, P), (B, A) -> (B,), read off at each answer's last token."""
        x = self.gpt(torch.cat([prompts, answers], dim=1))[0]  # (B, P + A) -> (B, P + A, C)
        last = prompts.shape[1] + answer_mask(answers).sum(dim=1) - 1  # (B,)
        x = x[torch.arange(len(x), device=x.device), last]  # (B, P + A, C) -> (B, C)
        return (self.head(x).squeeze(-1) - self.mean) / self.std  # (B, C) -> (B,)

    def standardise(self, rewards: torch.Tensor) -> None:
        """From now on, answers like those that got `rewards` (N,) have mean 0 and standard deviation 1."""
        self.mean, self.std = self.mean + self.std * rewards.mean(), self.std * rewards.std()


def chosen(values: torch.Tensor, verdicts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The values, (N, 4), of the better and of the worse answer of each verdict, (N, 6, 2): (N, 6) each."""
    better, worse = verdicts.unbind(-1)
    return values.gather(1, better), values.gather(1, worse)


def preference_loss(better: torch.Tensor, worse: torch.Tensor) -> torch.Tensor:
    """The mean surprise, in nats, at the verdicts, if rewards are log-odds: equation 1 of Ouyang et al. 2022.

    Bradley and Terry 1952; Christiano et al. 2017, section 2.2.3. A shift of all rewards changes nothing.
    """
    return -F.logsigmoid(better - worse).mean()
