"""Checks of the exercises of 14b_rlhf."""

import math
from collections.abc import Callable

import torch

from .asking import ask, expect
from .checking import exercise


@exercise("14b.1", Callable, "a function of two scores and the sharpness that gives a chance")
def asked_twice(answer: Callable) -> str:
    for first, second, sharpness in ((0.2, 0.5, 8.0), (0.9, 0.8, 8.0), (0.4, 0.4, 3.0), (1.0, 0.0, 2.0)):
        p = 1 / (1 + math.exp(-sharpness * (first - second)))
        flat = 1 / (1 + math.exp(second - first))
        expect(
            ask(answer, first, second, sharpness),
            p * p + (1 - p) ** 2,
            f"The chance for first={first}, second={second}, sharpness={sharpness}",
            {
                "This is the chance that the first answer wins once.": p,
                "This is the chance that the first answer wins twice; the second may win twice as well.": (
                    p * p
                ),
                "This is the chance that the two verdicts differ.": 2 * p * (1 - p),
                "The second answer wins twice with a chance of (1 - p) ** 2, not 1 - p ** 2.": 1.0,
                "This is how often the reader agrees with the better score, not with itself.": max(p, 1 - p),
                "The sharpness has no part in yours.": flat**2 + (1 - flat) ** 2,
            },
        )
    return (
        "Where the scores are equal, a reader agrees with itself half of the time. Nobody who learns from "
        "such verdicts can agree with new ones always, and that isn't the learner's fault."
    )


@exercise("14b.2", Callable, "a function of rewards, rewards, truth values and groups that gives (groups, 2)")
def sure_as_it_should_be(answer: Callable) -> str:
    for N, groups in ((24, 4), (40, 8), (12, 2)):
        first, second = 1.5 * torch.randn(N), 1.5 * torch.randn(N)
        chances = torch.sigmoid(first - second)
        won = torch.rand(N) < 0.2 + 0.6 * chances
        order = chances.argsort()
        cut = lambda values, order=order, groups=groups: values.float()[order].view(groups, -1)  # noqa: E731
        in_groups = lambda *rows: torch.stack([row.mean(dim=1) for row in rows], dim=1)  # noqa: E731
        right = in_groups(cut(chances), cut(won))
        said = ask(answer, first, second, won, groups)
        as_it_came = torch.arange(N)
        expect(
            said,
            right,
            f"For {N} random verdicts in {groups} groups",
            {
                "The groups come in descending order; begin with the lowest chances.": right.flip(0),
                "The verdicts aren't sorted by their chances.": (
                    in_groups(cut(chances, as_it_came), cut(won, as_it_came))
                ),
                "The chances are sorted, but the outcomes aren't: use the same order for both.": (
                    in_groups(cut(chances), cut(won, as_it_came))
                ),
                "The outcomes are sorted by themselves; they have to follow the chances' order.": (
                    in_groups(cut(chances), won.float().sort().values.view(groups, -1))
                ),
                "Your chances are those of the second answer: it is sigmoid(first - second).": (
                    in_groups(1 - cut(chances), cut(won))
                ),
                "These are differences of rewards; the sigmoid that makes them chances is missing.": (
                    in_groups(cut(first - second), cut(won))
                ),
                "Your groups take every so manyth verdict; neighbours in the order belong together.": (
                    in_groups(
                        chances[order].view(-1, groups).T,
                        won.float()[order].view(-1, groups).T,
                    )
                ),
                "The columns are swapped: the mean chance comes first.": right.flip(1),
                "The second column is how often the surer side won; expected how often the first answer did.": (
                    in_groups(cut(chances), cut(won == (chances > 0.5)))
                ),
            },
        )
    return (
        "In these examples the model was surer than it should have been: where it said 0.9, less came true. The "
        "number that you need to see this is not the agreement, and it isn't in the loss curve either."
    )


@exercise("14b.3", Callable, "a function from (B, A, V) logits, twice, and a (B, A) mask to (B,) nats")
def kl_from_all(answer: Callable) -> str:
    for B, A, V in ((3, 5, 7), (2, 4, 3)):
        policy_logits, reference_logits = torch.randn(B, A, V), torch.randn(B, A, V)
        mask = torch.arange(A) < torch.arange(A, A - B, -1)[:, None]
        policy, reference = policy_logits.log_softmax(-1), reference_logits.log_softmax(-1)
        each = (policy.exp() * (policy - reference)).sum(-1)
        reverse = (reference.exp() * (reference - policy)).sum(-1)
        raw = (policy.exp() * (policy_logits - reference_logits)).sum(-1)
        by_position = lambda kl, mask=mask: (kl * mask).sum(1)  # noqa: E731
        expect(
            ask(answer, policy_logits, reference_logits, mask),
            by_position(each),
            f"For random logits of shape ({B}, {A}, {V})",
            {
                "This is KL(reference || policy); the policy's probabilities are the weights.": (
                    by_position(reverse)
                ),
                "Padding counts in yours: use the mask.": each.sum(1),
                "You have the mean over the tokens; the KL of an answer is their sum.": (
                    by_position(each) / mask.sum(1)
                ),
                "These are differences of logits; take log_softmax of both first.": by_position(raw),
                "The sign is turned round: a KL is never negative.": -by_position(each),
                "The log-ratios of all characters are added up without weights; each counts with its probability.": (
                    by_position((policy - reference).sum(-1))
                ),
                "The softmax runs over the wrong dimension; the vocabulary is the last.": by_position(
                    (
                        policy_logits.softmax(1)
                        * (policy_logits.log_softmax(1) - reference_logits.log_softmax(1))
                    ).sum(-1)
                ),
                "You take the mean over the vocabulary; it is a sum, weighted by probabilities.": (
                    by_position(each) / V
                ),
            },
        )
    return (
        "It can't be negative, for any answer, and has the same mean as k1 and k3. It costs no forward pass more, only the "
        "memory for all characters' probabilities, which is why k3 is used where the vocabulary is large."
    )


@exercise("14b.4", Callable, "a function of (K,) chances, (K,) rewards and n that gives nats")
def best_with_ties(answer: Callable) -> str:
    chances = torch.tensor([0.4, 0.1, 0.2, 0.05, 0.25])
    examples = (
        (chances, torch.tensor([1.0, 3.0, 2.0, 5.0, 4.0]), 4),
        (chances, torch.tensor([1.0, 1.0, 2.0, 2.0, 0.5]), 4),
        (chances, torch.tensor([2.0, 2.0, 2.0, 2.0, 2.0]), 3),
        (torch.full((50,), 0.02), torch.arange(50) // 5 + 0.5, 2),
        (chances, torch.tensor([-1.0, 0.5, -1.0, 0.5, 0.5]), 7),
    )
    for p, rewards, n in examples:
        picked = chosen_by_best(p, rewards, n)
        apart = chosen_by_best(p, rewards.argsort(stable=True).argsort().float(), n)
        whole_tie = picked * tie_chances(p, rewards) / p
        expect(
            ask(answer, p, rewards, n),
            mean_log(picked, p),
            f"The KL for chances {shown(p)}, rewards {shown(rewards)} and n={n}",
            {
                "That's the formula for answers which are all unlikely and never tie; here it's an upper bound.": (
                    math.log(n) - (n - 1) / n
                ),
                "You treat equal rewards as different ones; of a tie, each answer gets its share.": (
                    mean_log(apart, p)
                ),
                "You give each answer of a tie the chance of the whole tie; the tie's answers share it.": (
                    mean_log(whole_tie, p)
                ),
                "This is KL(model || best of n); the mean runs over the answers of best of n.": (
                    (p * (p / picked).log()).sum().item()
                ),
                "The sign is turned round: a KL is never negative.": -mean_log(picked, p),
                "This is in bits; take the natural logarithm.": mean_log(picked, p) / math.log(2),
                "You take the lowest reward for the best.": mean_log(chosen_by_best(p, -rewards, n), p),
            },
        )
    return (
        "Where all answers tie, nothing is chosen and the KL is 0. A model that says the same thing most of the time gets "
        "away with less than the formula says, and the comparison with PPO is a little too kind to PPO."
    )


def tie_chances(p: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
    """For each answer, the model's chance of an answer with its reward, (K,) -> (K,)."""
    return (p * (rewards == rewards[:, None])).sum(dim=1)


def chosen_by_best(p: torch.Tensor, rewards: torch.Tensor, n: int) -> torch.Tensor:
    """The chance of each answer to be picked by best of n, ties broken at random, (K,) -> (K,)."""
    up_to = (p * (rewards <= rewards[:, None])).sum(dim=1)
    tie = tie_chances(p, rewards)
    return p / tie * (up_to**n - (up_to - tie).clamp(min=0) ** n)


def mean_log(picked: torch.Tensor, p: torch.Tensor) -> float:
    """The sum of picked * ln(picked / p); for probabilities, KL(picked || p) in nats."""
    return (picked * (picked / p).log()).sum().item()


def shown(values: torch.Tensor) -> str:
    """Some values as a list, the first five of many."""
    some = [round(value, 2) for value in values[:5].tolist()]
    return str(some) if len(values) == len(some) else f"{some[:-1]} and {len(values) - 4} more"
