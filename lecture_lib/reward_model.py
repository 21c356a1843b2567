"""Reward model.

From notebooks/14b_rlhf.ipynb, section "1. Verdicts".
Video 1:48:53.
Written by `lecture promote`: edit the notebook, not this file.

Bradley and Terry 1952: https://doi.org/10.2307/2334029
Ouyang et al. 2022: https://arxiv.org/abs/2203.02155
Christiano et al. 2017: https://arxiv.org/abs/1706.03741
"""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from lecture_lib.fine_tuning import answer_mask, sample_answers
from lecture_lib.nanogpt import NanoGPT
from lecture_lib.requests import ANSWER_LENGTH, Request, Task, repeated_requests

__all__ = [
    "ANSWER_PAIRS",
    "Labelled",
    "RewardModel",
    "judge_pairs",
    "label_answers",
    "preference_loss",
    "split_verdicts",
]

ANSWER_PAIRS = torch.combinations(torch.arange(4))  # (6, 2): all pairs of the four answers to a prompt


def judge_pairs(scores: torch.Tensor, sharpness: float) -> torch.Tensor:
    """A noisy reader's verdicts on all pairs of a prompt's answers: scores (N, 4) -> better, worse (N, 6, 2).

    Bradley and Terry 1952: P(first preferred) = sigmoid(sharpness * (first - second)).
    """
    first, second = scores[:, ANSWER_PAIRS].unbind(-1)  # (N, 6), (N, 6)
    prefers_first = torch.rand_like(first) < torch.sigmoid(sharpness * (first - second))
    return torch.where(prefers_first[..., None], ANSWER_PAIRS, ANSWER_PAIRS.flip(1))  # (N, 6, 1), (6, 2)


@dataclass(frozen=True)
class Labelled:
    """Four answers to each of N prompts, and a reader's verdicts on them; the scores are for us alone."""

    prompts: torch.Tensor  # (4N, P)
    answers: torch.Tensor  # (4N, A)
    scores: torch.Tensor  # (N, 4)
    verdicts: torch.Tensor  # (N, 6, 2): of each pair, the better and the worse

    def rows(self, i: torch.Tensor) -> torch.Tensor:
        """Where the four answers to each of some prompts stand: (B,) -> (4B,)."""
        return (4 * i[:, None] + torch.arange(4)).flatten()  # (B, 1) + (4,) -> (4B,)


def label_answers(model: NanoGPT, task: Task, requests: list[Request], sharpness: float = 8.0) -> Labelled:
    """Draw four answers of the model to each request, and ask the reader about all pairs."""
    asked = repeated_requests(requests, 4)
    prompts = task.encode_prompts(asked)
    answers = sample_answers(model, prompts, ANSWER_LENGTH)
    scores = task.true_scores(asked, answers).view(-1, 4)
    return Labelled(prompts, answers, scores, judge_pairs(scores, sharpness))


class RewardModel(nn.Module):
    """A GPT whose head gives a whole answer one number, its reward (Ouyang et al. 2022, 3.5)."""

    def __init__(self, model: NanoGPT):
        super().__init__()
        self.gpt = copy.deepcopy(model).eval()
        del self.gpt.lm_head  # its features are read, not its logits
        self.head = nn.Linear(model.config.n_embd, 1)
        nn.init.zeros_(self.head.weight)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    def forward(self, prompts: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """Rewards, read off at each answer's last token: (B, P), (B, A) -> (B,)."""
        x = self.gpt.body(self.gpt.embed(torch.cat([prompts, answers], dim=1)))  # (B, P + A) -> (B, P + A, C)
        last = prompts.shape[1] + answer_mask(answers).sum(dim=1) - 1  # (B,)
        x = x[torch.arange(len(x), device=x.device), last]  # (B, P + A, C) -> (B, C)
        return (self.head(x).squeeze(-1) - self.mean) / self.std  # (B, C) -> (B,)

    def standardise(self, rewards: torch.Tensor) -> None:
        """Shift and scale later rewards so that these, (N,), would have mean 0 and standard deviation 1."""
        self.mean, self.std = self.mean + self.std * rewards.mean(), self.std * rewards.std()


def preference_loss(better: torch.Tensor, worse: torch.Tensor) -> torch.Tensor:
    """The mean loss of the verdicts, in nats, with rewards as log-odds: equation 1 of Ouyang et al. 2022.

    Bradley and Terry 1952; Christiano et al. 2017, section 2.2.3. A shift of all rewards changes nothing."""
    return -F.logsigmoid(better - worse).mean()


def split_verdicts(values: torch.Tensor, verdicts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of values (N, 4), those of the better and of the worse answer by verdicts (N, 6, 2): (N, 6) each."""
    better, worse = verdicts.unbind(-1)
    return values.gather(1, better), values.gather(1, worse)
