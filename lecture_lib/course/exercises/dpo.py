"""Checks of the exercises of 14c_dpo."""

from collections.abc import Callable

import torch

from lecture_lib.dpo import dpo_loss
from lecture_lib.fine_tuning import masked_mean
from lecture_lib.ppo import clipped_loss

from .asking import ask, expect
from .checking import exercise


@exercise(
    "14c.1", Callable, "a function of (N, E) log-probabilities, twice, and beta that gives (N, E) rewards"
)
def reward_inside(answer: Callable) -> str:
    for N, E, beta in ((3, 4, 0.5), (2, 6, 0.1), (5, 2, 2.0)):
        reference = -20 - 10 * torch.rand(N, E)
        policy = reference + torch.randn(N, E)
        rewards = beta * (policy - reference)
        centred = rewards - rewards.mean(dim=1, keepdim=True)
        quotient = beta * policy / reference
        expect(
            ask(answer, policy, reference, beta),
            centred,
            f"The rewards of ({N}, {E}) random answers with beta={beta}",
            {
                "The sign is turned round: an answer is rewarded if the policy likes it more than the reference.": (
                    -centred
                ),
                "beta is missing.": centred / beta,
                "beta multiplies the log-ratio; you divide by it.": centred / beta**2,
                "Each prompt's rewards still have to be shifted to mean 0.": rewards,
                "A prompt is a row: subtract the mean over dim=1, not the mean of all.": (
                    rewards - rewards.mean()
                ),
                "A prompt is a row, so its mean runs over dim=1, not over dim=0.": (
                    rewards - rewards.mean(dim=0)
                ),
                "You divide log-probabilities; the logarithm of a quotient is their difference.": (
                    quotient - quotient.mean(dim=1, keepdim=True)
                ),
            },
            atol=1e-4,
        )
    return "This is all that DPO has of a reward model. It costs two forward passes, the policy's and the reference's."


@exercise("14c.2", Callable, "a function of (N,) better, (N,) worse and beta that gives (N,) derivatives")
def who_pulls(answer: Callable) -> str:
    for beta in (0.5, 0.1, 2.0):
        better, worse = 2 * torch.randn(6), 2 * torch.randn(6)
        z = beta * (better - worse)
        right = -beta * torch.sigmoid(-z)
        expect(
            ask(answer, better, worse, beta),
            right,
            f"The derivatives for random log-ratios with beta={beta}",
            {
                "A minus is missing: the loss falls as the better answer becomes likelier.": -right,
                "The inner derivative is missing: z = beta * (better - worse) grows by beta for each nat.": (
                    right / beta
                ),
                "Yours pulls hardest where the verdict is already right; it is sigma of minus z.": (
                    -beta * torch.sigmoid(z)
                ),
                "beta also stands inside of the sigmoid.": -beta * torch.sigmoid(worse - better),
                "This is the derivative of the mean; give each verdict's own.": right / 6,
                "This is the loss of each verdict, not its derivative.": -torch.nn.functional.logsigmoid(z),
            },
        )
    return (
        "A verdict pulls as hard as the policy is wrong about it, at most beta; once it is right by far, it rests. "
        "And only the difference counts: where both answers stand, no verdict asks."
    )


@exercise("14c.3", Callable, "a function from (N, G) rewards to (N, G) advantages")
def without_deviation(answer: Callable) -> str:
    examples = (
        torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]),
        torch.randn(3, 6),
        torch.tensor([[1.0, 0]]),
    )
    for rewards in examples:
        G = rewards.shape[1]
        mean = rewards.mean(dim=1, keepdim=True)
        right = (rewards - mean) * G / (G - 1)
        expect(
            ask(answer, rewards),
            right,
            f"The advantages for rewards {rewards.tolist() if G != 6 else 'of shape (3, 6)'}",
            {
                "An answer's own reward is still part of the mean; it should be that of the others.": (
                    rewards - mean
                ),
                "The standard deviation is still there.": (
                    (rewards - mean) / (rewards.std(dim=1, keepdim=True) + 1e-4)
                ),
                "You subtract the sum of the others; divide it by their number.": (
                    2 * rewards - rewards.sum(dim=1, keepdim=True)
                ),
                "The sum of the others is divided by G; there are only G - 1 of them.": (
                    rewards - (G * mean - rewards) / G
                ),
                "The sign is turned round: what is better than the others has a positive advantage.": -right,
                "These are the means of the others; an advantage is the reward minus that.": rewards - right,
            },
        )
    return (
        "One success among three failures gets an advantage of 1 now, and one failure among three successes -1: the more "
        "a group's rewards differ, the more it counts. Division by the standard deviation gives nearly unanimous groups "
        "more weight."
    )


@exercise(
    "14c.4", Callable, "a function of now, then, reference, advantages, mask and beta that gives one number"
)
def loss_in_the_paper(answer: Callable) -> str:
    for beta in (0.02, 0.5):
        then = -2 * torch.rand(4, 7)
        now, reference = then + 0.4 * torch.randn(4, 7), then + 0.4 * torch.randn(4, 7)
        mask = torch.arange(7) < torch.tensor([[7], [2], [4], [3]])
        advantages = torch.tensor([[1.5], [-0.5], [-1.5], [0.5]])
        gain = clipped_gain(now, then, advantages)
        unclipped = (now - then).exp() * advantages
        log_r = reference - now
        k3, reverse = log_r.exp() - 1 - log_r, (-log_r).exp() - 1 + log_r
        by_answer = lambda loss: ((loss * mask).sum(dim=1) / mask.sum(dim=1)).mean().item()  # noqa: B023, E731
        loss = beta * k3 - gain
        expect(
            ask(answer, now, then, reference, advantages, mask, beta),
            by_answer(loss),
            f"The loss of 4 random answers of 7, 2, 4 and 3 tokens with beta={beta}",
            {
                "This is the mean over all tokens, the chapter's; take each answer's mean first.": (
                    masked_mean(loss, mask).item()
                ),
                "Your means divide by the width of the rows; divide by each answer's own number of tokens.": (
                    (loss * mask).mean().item()
                ),
                "The padding counts in yours: use the mask.": loss.mean().item(),
                "You add up each answer's tokens; divide by their number.": (
                    (loss * mask).sum(dim=1).mean().item()
                ),
                "The answers are added up; take their mean.": 4 * by_answer(loss),
                "The objective has to be negated: a loss is minimised.": by_answer(beta * k3 + gain),
                "The penalty has to be added to the loss: distance costs.": by_answer(-beta * k3 - gain),
                "Your penalty is k1, the plain log-ratio; k3 is r - 1 - ln r.": by_answer(
                    -beta * log_r - gain
                ),
                "In your k3, r is policy / reference; it is reference / policy.": by_answer(
                    beta * reverse - gain
                ),
                "The ratio isn't clipped.": by_answer(beta * k3 - unclipped),
                "There is no penalty in yours.": by_answer(-gain),
            },
        )
    return (
        "Each answer now has the same say, and a token of a long answer less than one of a short answer. Whether that is "
        "wanted is disputed: it makes long wrong answers cheap."
    )


def clipped_gain(now: torch.Tensor, then: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
    """What PPO's clipped objective credits to each token, (B, A)."""
    one = torch.ones(1, 1)
    gains = [
        -clipped_loss(now[i, j].view(1, 1), then[i, j].view(1, 1), advantages[i].view(1, 1), one, clip=0.2)
        for i in range(now.shape[0])
        for j in range(now.shape[1])
    ]
    return torch.stack(gains).view_as(now)


@exercise("14c.5", Callable, "a function of better, worse, beta and error that gives one number")
def erring_reader(answer: Callable) -> str:
    for error, beta in ((0.2, 0.5), (0.0, 0.3), (0.4, 1.0), (0.1, 0.1)):
        better, worse = 2 * torch.randn(8), 2 * torch.randn(8)
        told, turned = dpo_loss(better, worse, beta).item(), dpo_loss(worse, better, beta).item()
        right = ((1 - error) * told - error * turned) / (1 - 2 * error)
        expect(
            ask(answer, better, worse, beta, error),
            right,
            f"The loss of 8 random verdicts with beta={beta}, error={error}",
            {
                "This is the plain DPO loss: the errors aren't accounted for.": told,
                "You average over right and wrong clicks. That is what the plain loss gives a reader who errs; "
                "expected the loss whose average is right.": (1 - error) * told + error * turned,
                "The quotient is missing: the two weights have to add up to 1.": (
                    (1 - error) * told - error * turned
                ),
                "The two weights are swapped: the verdict as told has the larger one, and it is positive.": (
                    ((1 - error) * turned - error * told) / (1 - 2 * error)
                ),
                "Your weights divide by 1 - error; put them into both equations.": (
                    told - error / (1 - error) * turned
                ),
                "You have the sum over the verdicts; return their mean.": 8 * right,
                "beta is missing.": (
                    (1 - error) * dpo_loss(better, worse, 1.0) - error * dpo_loss(worse, better, 1.0)
                ).item()
                / (1 - 2 * error),
            },
        )
    return (
        "On average over the slips this is the loss of a reader who makes none; it is known as robust DPO. The price is noise, and a loss that a large "
        "wrong verdict can drive below 0."
    )
