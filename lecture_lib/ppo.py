"""Proximal policy optimization (PPO).

From notebooks/14b_rlhf.ipynb, section "4. Stage 3: PPO, piece by piece".
Video 1:48:53.
Written by `lecture promote`: edit the notebook, not this file.

Ziegler et al. 2019: https://arxiv.org/abs/1909.08593
Ouyang et al. 2022: https://arxiv.org/abs/2203.02155
Schulman et al. 2016: https://arxiv.org/abs/1506.02438
Schulman et al. 2017: https://arxiv.org/abs/1707.06347
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from lecture_lib.fine_tuning import (
    answer_features,
    answer_log_probs,
    answer_mask,
    log_probs_of,
    masked_mean,
    sample_answers,
)
from lecture_lib.nanogpt import NanoGPT

__all__ = [
    "PPO",
    "ActorCritic",
    "PPOConfig",
    "Rollout",
    "answer_log_ratios",
    "clipped_loss",
    "estimate_advantages",
    "token_rewards",
    "whitened",
]


def token_rewards(
    scores: torch.Tensor, log_ratio: torch.Tensor, mask: torch.Tensor, beta: float
) -> torch.Tensor:
    """The reward of each token: minus beta times its share of the KL, plus the score on the last one.

    `scores` is (B,), `log_ratio` = log policy - log reference and `mask` are (B, A); returns (B, A).
    Ziegler et al. 2019, equation 2; Ouyang et al. 2022, equation 2.
    """
    last = mask.sum(dim=1, keepdim=True) - 1  # (B, 1)
    return (-beta * log_ratio * mask).scatter_add(1, last, scores[:, None])


def estimate_advantages(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float = 1.0, lam: float = 0.95
) -> torch.Tensor:
    """How much better each token was than expected, all (B, A); 0 where the mask is False.

    Schulman et al. 2016, equation 16: the sum of the TD errors `rewards + gamma * next value - value` from
    here on, discounted by gamma * lam a token. The value after an answer's last token is 0."""
    values = values * mask
    advantages, ahead = torch.zeros_like(rewards), torch.zeros_like(rewards[:, 0])
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)  # (B, A)
    td_errors = (rewards + gamma * following - values) * mask
    for t in reversed(range(rewards.shape[1])):
        ahead = td_errors[:, t] + gamma * lam * ahead  # (B,)
        advantages[:, t] = ahead
    return advantages


def clipped_loss(
    log_probs: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor, clip: float
) -> torch.Tensor:
    """PPO's surrogate, negated, the mean over unmasked tokens: Schulman et al. 2017, equation 7.

    Log-probabilities now and when the answers were drawn, advantages and mask: all (B, A).
    """
    ratio = (log_probs - old).exp()
    gain = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    return -masked_mean(gain, mask)


def whitened(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean 0 and variance 1 over the unmasked tokens, (B, A) -> (B, A)."""
    centred = values - masked_mean(values, mask)
    return centred / (masked_mean(centred**2, mask).sqrt() + 1e-8)


class ActorCritic(nn.Module):
    """A policy, and a value head that estimates from its features the reward still to come.

    Both stay in eval mode, without dropout: the policy that is updated must be the one that was sampled.
    """

    def __init__(self, model: NanoGPT):
        super().__init__()
        self.policy = copy.deepcopy(model)
        self.value_head = nn.Linear(model.config.n_embd, 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self.eval()

    def forward(self, prompts: torch.Tensor, answers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, P), (B, A) -> log-probabilities of the answer tokens and values before each: (B, A), (B, A)."""
        features = answer_features(self.policy, prompts, answers)  # (B, A, C)
        values = self.value_head(features.detach()).squeeze(-1)  # the head learns, the features stay
        return log_probs_of(self.policy.lm_head(features), answers), values


@dataclass(frozen=True)
class PPOConfig:
    """Settings of `PPO`."""

    beta: float = 0.2  # the KL penalty: what a nat costs, in standard deviations of the reward
    learning_rate: float = 1e-4  # of the policy
    value_learning_rate: float = 3e-3  # of the value head
    epochs: int = 2  # passes over each batch of answers
    minibatch: int = 32  # answers per optimizer step
    clip: float = 0.2  # how far a ratio may move before it earns no more
    gamma: float = 1.0  # discount of a reward, per token that it lies ahead
    lam: float = 0.95  # discount of a TD error, per token that it lies ahead


@dataclass(frozen=True)
class Rollout:
    """Answers and what was measured as they were drawn: (B, A) each, but prompts (B, P), scores (B,)."""

    prompts: torch.Tensor
    answers: torch.Tensor
    mask: torch.Tensor
    log_probs: torch.Tensor
    log_ratio: torch.Tensor  # log policy - log reference
    values: torch.Tensor
    scores: torch.Tensor

    @property
    def kl(self) -> float:
        """KL(policy || reference) in nats per answer, estimated from these answers."""
        return (self.log_ratio * self.mask).sum(dim=1).mean().item()


class PPO:
    """Proximal policy optimisation of a language model (Schulman et al. 2017; Ziegler et al. 2019).

    `score(prompts, answers)` gives (B,) rewards. The reference is a frozen copy of `model` as it is now.
    """

    def __init__(self, model: NanoGPT, score: Callable, max_new_tokens: int, config: PPOConfig):
        self.score, self.max_new_tokens, self.config = score, max_new_tokens, config
        self.reference = copy.deepcopy(model).eval().requires_grad_(False)
        self.actor = ActorCritic(model)
        groups = [
            {"params": self.actor.policy.parameters(), "lr": config.learning_rate},
            {"params": self.actor.value_head.parameters(), "lr": config.value_learning_rate},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.0, fused=True)

    @torch.no_grad()
    def collect(self, prompts: torch.Tensor) -> Rollout:
        """Draw an answer to each prompt, and measure what an update needs."""
        answers = sample_answers(self.actor.policy, prompts, self.max_new_tokens)
        log_probs, values = self.actor(prompts, answers)
        log_ratio = log_probs - answer_log_probs(self.reference, prompts, answers)
        scores = self.score(prompts, answers)
        return Rollout(prompts, answers, answer_mask(answers), log_probs, log_ratio, values, scores)

    def update(self, seen: Rollout) -> None:
        """Learn from a rollout: a few epochs, with an optimizer step for each minibatch of its answers."""
        config, mask = self.config, seen.mask
        rewards = token_rewards(seen.scores, seen.log_ratio, mask, config.beta)
        advantages = estimate_advantages(rewards, seen.values, mask, config.gamma, config.lam)
        returns = advantages + seen.values  # what the value should have been
        advantages = whitened(advantages, mask)
        for _ in range(config.epochs):
            for i in torch.randperm(len(mask)).split(config.minibatch):
                log_probs, values = self.actor(seen.prompts[i], seen.answers[i])
                loss = clipped_loss(log_probs, seen.log_probs[i], advantages[i], mask[i], config.clip)
                loss = loss + masked_mean((values - returns[i]) ** 2, mask[i])
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.actor.policy.parameters(), 1.0)
                self.optimizer.step()


@torch.no_grad()
def answer_log_ratios(
    model: NanoGPT, reference: NanoGPT, prompts: torch.Tensor, answers: torch.Tensor
) -> torch.Tensor:
    """log model - log reference of each whole answer, in nats: (N, P), (N, A) -> (N,).

    Its mean over the model's own answers estimates KL(model || reference).
    """
    ratios = []
    for asked, said in zip(prompts.split(128), answers.split(128), strict=True):
        log_ratio = answer_log_probs(model, asked, said) - answer_log_probs(reference, asked, said)
        ratios.append((log_ratio * answer_mask(said)).sum(dim=1))  # (B, A) -> (B,)
    return torch.cat(ratios)
