"""PPO of chapter 14b and DPO of 14c."""

import copy
import math
from functools import partial
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import DOUBLE, Suite, close, draw, seeded, suite_tests

from lecture_lib import dpo, ppo
from lecture_lib.fine_tuning import answer_log_probs, answer_mask
from lecture_lib.nanogpt import NanoGPT, NanoGPTConfig

VOCAB, P, A = 5, 2, 4
PROMPTS = torch.tensor([[1, 2], [3, 4]]).repeat(16, 1)
MASK = torch.tensor([[True, True, True, False], [True, False, False, False]])

reinforced, direct = Suite(ppo), Suite(dpo)
nearly = partial(close, atol=1e-6)  # in single precision


def moved(model, by=0.3):
    """The model with noise on its weights, so that it's no longer what it was."""
    for seed, parameter in enumerate(model.parameters()):
        parameter.data += by * draw(*parameter.shape, seed=seed, dtype=parameter.dtype)
    return model


def make(dropout=0.0):
    return moved(seeded(NanoGPT, NanoGPTConfig(VOCAB, 8, 8, 2, 1, dropout, tied=False)), by=0.1)


def constant(prompts, answers):
    return torch.ones(len(answers))


def trainer(library, score=constant, model=None, A=A, **config):
    settings = {"learning_rate": 1e-2, "value_learning_rate": 1e-2, "beta": 0.0, "minibatch": 32, **config}
    return library.PPO(model or make().eval(), score, A, library.PPOConfig(**settings))


# ---------------------------------------------------------------- rewards, advantages, loss


@reinforced.holds
def rewards_by_hand(library):
    """The score on the last token, a price for moving away on every one, nothing on what fills the row."""
    log_ratio = torch.tensor([[0.5, -1.0, 2.0, 9.0], [1.0, 9.0, 9.0, 9.0]])
    rewards = library.token_rewards(torch.tensor([3.0, 4.0]), log_ratio, MASK, beta=0.1)
    nearly(rewards, torch.tensor([[-0.05, 0.1, 2.8, 0.0], [3.9, 0.0, 0.0, 0.0]]))


@reinforced.holds
def advantages_by_hand(library):
    rewards, values = torch.tensor([[0.0, 0.0, 1.0, 7.0]]), torch.tensor([[0.2, 0.6, 0.8, 5.0]])
    nearly(
        library.estimate_advantages(rewards, values, MASK[:1], 1.0, 0.5), torch.tensor([[0.55, 0.3, 0.2, 0]])
    )
    # gamma 0.5: surprises 0.5 * 0.6 - 0.2 = 0.1, 0.5 * 0.8 - 0.6 = -0.2, 0.2, each faded by 0.25
    expected = torch.tensor([[0.1 - 0.05 + 0.0125, -0.2 + 0.05, 0.2, 0.0]])
    nearly(library.estimate_advantages(rewards, values, MASK[:1], 0.5, 0.5), expected)


@reinforced.holds
def right_values_are_never_surprised(library):
    """A constant reward of 1 a token: whoever guesses 3, 2, 1 (or 1) has nothing to learn, for any lambda."""
    values = torch.tensor([[3.0, 2.0, 1.0, 7.0], [1.0, 7.0, 7.0, 7.0]])
    for lam in (0.0, 0.5, 1.0):
        nearly(library.estimate_advantages(MASK.float(), values, MASK, 1.0, lam), torch.zeros(2, 4))


@reinforced.holds
def gain_by_hand(library):
    for ratio, (advantage, below, within, above) in product(
        (0.5, 0.9, 1.5), ((1.0, 0.5, 0.9, 1.2), (-2.0, -1.6, -1.8, -3.0))
    ):
        gain = {0.5: below, 0.9: within, 1.5: above}[ratio]
        mask = torch.tensor([[True, False]])
        log_probs = torch.tensor([[math.log(ratio) - 1, 3.0]])
        old, advantages = torch.tensor([[-1.0, 0.0]]), torch.tensor([[advantage, 9.0]])
        loss = library.clipped_loss(log_probs, old, advantages, mask, clip=0.2)
        assert loss.item() == pytest.approx(-gain, abs=1e-6), (ratio, advantage)


@reinforced.holds
def whitened_over_the_answers_alone(library):
    values = torch.tensor([[1.0, 2.0, 6.0, 1e3], [3.0, 1e3, 1e3, 1e3]])
    inside = library.whitened(values, MASK)[MASK]
    nearly(inside.mean(), torch.zeros(()))
    close(inside.var(unbiased=False), torch.ones(()), atol=1e-5)


# ---------------------------------------------------------------- the trainer


@reinforced.holds
def nothing_differs_before_the_first_step(library):
    """KL 0, every ratio 1, for a model handed over in train mode, with dropout."""
    start = trainer(library, model=make(dropout=0.5).train())
    seen = start.collect(PROMPTS)
    assert abs(seen.kl) < 1e-6 and seen.log_ratio.abs().max() < 1e-6
    ratio = (start.actor(seen.prompts, seen.answers)[0] - seen.log_probs).exp()
    nearly(ratio, torch.ones_like(ratio))


@reinforced.holds
def rollout_notes_what_was(library):
    """Log-probabilities of the policy, their ratio to the reference, a KL over the answers' own tokens."""
    start = trainer(library, lambda p, a: (p[:, 0] + a[:, 0]).float())
    moved(start.actor.policy)
    seen = start.collect(PROMPTS)
    ours, theirs = (answer_log_probs(m, PROMPTS, seen.answers) for m in (start.actor.policy, start.reference))
    nearly(seen.log_probs, ours)
    nearly(seen.log_ratio, ours - theirs)
    assert seen.answers.shape == (32, A) and torch.equal(seen.mask, answer_mask(seen.answers))
    assert torch.equal(seen.scores, (PROMPTS[:, 0] + seen.answers[:, 0]).float())
    assert seen.kl == pytest.approx(((ours - theirs) * seen.mask).sum(1).mean().item(), abs=1e-5)
    assert not any(getattr(seen, name).requires_grad for name in ("log_probs", "values", "log_ratio"))


@reinforced.holds
def log_ratios_are_of_whole_answers(library):
    """Summed over an answer's own tokens; their mean over the policy's answers is the rollout's KL."""
    start = trainer(library)
    moved(start.actor.policy)
    seen = start.collect(PROMPTS.repeat(5, 1))  # more than pass through the models at a time
    ours = library.answer_log_ratios(start.actor.policy, start.reference, seen.prompts, seen.answers)
    nearly(ours, (seen.log_ratio * seen.mask).sum(dim=1))
    assert ours.mean().item() == pytest.approx(seen.kl, abs=1e-5) and not ours.requires_grad


@reinforced.holds
def reference_is_frozen(library):
    model = make().eval()
    before = copy.deepcopy(model.state_dict())
    learner = trainer(library, lambda p, a: (a[:, 0] == 3).float(), model)
    learner.update(learner.collect(PROMPTS))
    for name, tensor in before.items():
        assert torch.equal(tensor, learner.reference.state_dict()[name])
        assert torch.equal(tensor, model.state_dict()[name])
    assert any((tensor != learner.actor.policy.state_dict()[name]).any() for name, tensor in before.items())


@reinforced.holds
def best_arm_of_a_bandit_is_found(library):
    """One token an answer, worth 1 if it is 3 after the first prompt, 4 after the second."""
    learner = trainer(library, lambda p, a: (a[:, 0] == 3 + (p[:, 0] == 3)).float(), A=1, learning_rate=7e-2)
    for _ in range(5):
        learner.update(learner.collect(PROMPTS))
    probs = learner.actor.policy(PROMPTS[:2])[0][:, -1].softmax(dim=-1)
    assert probs[0, 3] > 0.9 and probs[1, 4] > 0.9


@reinforced.holds
def value_of_a_constant_reward_is_learned(library):
    learner = trainer(library, lambda p, a: torch.full((len(a),), 0.5), learning_rate=0.0, epochs=4,
                      value_learning_rate=0.06)  # fmt: skip
    for _ in range(3):
        learner.update(learner.collect(PROMPTS))
    seen = learner.collect(PROMPTS)
    assert (seen.values[seen.mask] - 0.5).abs().mean() < 0.1


@reinforced.holds
def price_pulls_back_to_the_reference(library):
    """No reward, a price on KL: a policy that has gone astray comes nearer again."""
    learner = trainer(library, lambda p, a: torch.zeros(len(a)), beta=1.0, learning_rate=2e-2)
    moved(learner.actor.policy)
    astray = learner.collect(PROMPTS.repeat(4, 1)).kl
    for _ in range(3):
        learner.update(learner.collect(PROMPTS))
    assert -0.05 < learner.collect(PROMPTS.repeat(4, 1)).kl < 0.6 * astray


@reinforced.holds
def values_leave_the_features_alone(library):
    """With all advantages alike, whitened to 0, only the value head learns."""
    learner = trainer(library, A=1)
    before = copy.deepcopy(learner.actor.policy.state_dict())
    learner.update(learner.collect(PROMPTS))
    after = learner.actor.policy.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert learner.actor.value_head.weight.abs().sum() > 0


@reinforced.holds
def no_gradient_is_longer_than_1(library):
    """The policy's: this one would be 1.4 long."""
    learner = trainer(library, lambda p, a: (a[:, 0] == 3).float(), moved(make(), by=1.0))
    learner.update(learner.collect(PROMPTS))
    lengths = [weight.grad.norm() for weight in learner.actor.policy.parameters()]
    assert math.isclose(math.hypot(*lengths), 1, abs_tol=1e-4)


@reinforced.holds
def a_clipped_policy_stays_near(library):
    """Many epochs on one batch: once the ratios have left 1 +- clip, nothing drives them further."""

    def ratio_after(clip):
        score, how = (lambda p, a: (a[:, 0] == 3).float()), {"epochs": 12, "learning_rate": 3e-3}
        learner = trainer(library, score, A=1, clip=clip, **how)
        seen = seeded(learner.collect, PROMPTS, seed=1)
        learner.update(seen)
        log_probs, _ = learner.actor(seen.prompts, seen.answers)
        return (log_probs - seen.log_probs).exp()[seen.scores == 1].mean()

    assert 1.1 < ratio_after(clip=0.2) < 0.9 * ratio_after(clip=1e9)


# ---------------------------------------------------------------- DPO


@direct.holds
def dpo_by_hand(library):
    loss = library.dpo_loss(torch.tensor([2.0]), torch.tensor([-1.0]), beta=0.5)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1.5)))
    assert library.dpo_loss(torch.zeros(3), torch.zeros(3), beta=0.5).item() == pytest.approx(math.log(2))


@direct.holds
def log_prob_is_of_whole_answers(library):
    model = make().double()
    answers = torch.tensor([[3, 4, 0, 0], [1, 0, 0, 0]])
    logits = model(torch.cat([PROMPTS[:2], answers], dim=1))[0][:, P - 1 : -1]
    each = torch.distributions.Categorical(logits=logits).log_prob(answers)
    expected = torch.stack([each[0, :3].sum(), each[1, :2].sum()])
    close(library.sequence_log_prob(model, PROMPTS[:2], answers), expected)


@direct.holds
def a_step_prefers_the_better(library):
    """From the start, a step raises the better answer's log-probability and lowers the worse one's."""
    model = make().eval()
    answers = torch.tensor([[3, 4, 0, 0], [1, 0, 0, 0]])
    same = PROMPTS[:1].repeat(2, 1)
    before = library.sequence_log_prob(model, same, answers)
    better, worse = before - before.detach()
    loss = library.dpo_loss(better, worse, beta=0.1)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
        better, worse = library.sequence_log_prob(model, same, answers) - before
    assert better > 0 > worse


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 6), st.floats(0, 1), st.floats(0, 1), st.integers(0, 10**6))
def test_advantages_are_the_sum_of_the_equation(T, gamma, lam, seed):
    """Schulman et al. 2016, equation 16, term by term."""
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, 1, T, generator=generator, dtype=DOUBLE)
    following = [*values[0, 1:].tolist(), 0.0]
    deltas = [rewards[0, t].item() + gamma * following[t] - values[0, t].item() for t in range(T)]
    expected = [sum((gamma * lam) ** k * deltas[t + k] for k in range(T - t)) for t in range(T)]
    ours = ppo.estimate_advantages(rewards, values, torch.ones(1, T, dtype=torch.bool), gamma, lam)
    close(ours, torch.tensor([expected], dtype=DOUBLE))


def test_with_lambda_1_the_advantage_is_what_came_minus_what_was_guessed():
    rewards, values = torch.randn(2, 3, 4, dtype=DOUBLE)
    mask = torch.ones(3, 4, dtype=torch.bool)
    came = rewards.flip(1).cumsum(1).flip(1)
    close(ppo.estimate_advantages(rewards, values, mask, 1.0, 1.0), came - values)


reinforced.faults = [
    ("KL sign flipped", "(-beta *", "(beta *", rewards_by_hand),
    ("reward on the first token", "last, scores[:, None]", "last * 0, scores[:, None]", rewards_by_hand),
    ("reward on the filling", "mask.sum(dim=1, keepdim=True) - 1",
     "mask.sum(dim=1, keepdim=True) * 0 + mask.shape[1] - 1", rewards_by_hand),
    ("KL of the filling", "log_ratio * mask)", "log_ratio)", rewards_by_hand),
    ("values after the end", "values = values * mask", "values = values * 1", advantages_by_hand),
    ("surprise at the filling", "- values) * mask", "- values)", advantages_by_hand),
    ("from the front", "in reversed(range(rewards.shape[1]))", "in range(rewards.shape[1])",
     advantages_by_hand),
    ("no fading", "gamma * lam * ahead", "gamma * ahead", advantages_by_hand),
    ("next value forgotten", "gamma * following - values", "- values", right_values_are_never_surprised),
    ("clip unused", "ratio.clamp(1 - clip, 1 + clip)", "ratio", (gain_by_hand, a_clipped_policy_stays_near)),
    ("maximum, not minimum", "torch.minimum(", "torch.maximum(", gain_by_hand),
    ("loss upside down", "return -masked_mean(gain", "return masked_mean(gain", gain_by_hand),
    ("ratio upside down", "(log_probs - old)", "(old - log_probs)", (gain_by_hand,
     best_arm_of_a_bandit_is_found)),
    ("whitened with the filling", "values - masked_mean(values, mask)", "values - values.mean()",
     whitened_over_the_answers_alone),
    ("dropout on", "        self.eval()\n", "", nothing_differs_before_the_first_step),
    ("dropout on in the reference", ".eval().requires_grad_(False)", ".requires_grad_(False)",
     nothing_differs_before_the_first_step),
    ("reference not frozen", "self.reference = copy.deepcopy(model).eval().requires_grad_(False)\n"
     "        self.actor = ActorCritic(model)", "self.actor = ActorCritic(model)\n"
     "        self.reference = self.actor.policy", reference_is_frozen),
    ("the model itself is trained", "self.policy = copy.deepcopy(model)", "self.policy = model",
     reference_is_frozen),
    ("gradients as long as they are", "nn.utils.clip_grad_norm_(self.actor.policy.parameters(), 1.0)", "pass",
     no_gradient_is_longer_than_1),
    ("advantages not detached", "    @torch.no_grad()\n    def collect", "    def collect",
     rollout_notes_what_was),
    ("policy and reference swapped", "log_ratio = log_probs - answer_log_probs(",
     "log_ratio = -log_probs + answer_log_probs(", rollout_notes_what_was),
    ("filling in the KL", "(self.log_ratio * self.mask)", "(self.log_ratio)", rollout_notes_what_was),
    ("filling in the log-ratios", " * answer_mask(said)", "", log_ratios_are_of_whole_answers),
    ("log-ratios upside down", "answer_log_probs(model, asked, said) - answer_log_probs(reference",
     "answer_log_probs(reference, asked, said) - answer_log_probs(model", log_ratios_are_of_whole_answers),
    ("values bend the features", "features.detach()", "features", values_leave_the_features_alone),
    ("value head not trained", "loss = loss + masked_mean((values - returns[i]) ** 2, mask[i])", "pass",
     value_of_a_constant_reward_is_learned),
    ("value of the advantage", "advantages + seen.values", "advantages",
     value_of_a_constant_reward_is_learned),
    ("answers and advantages mixed up", "advantages[i], mask[i]", "advantages[: len(i)], mask[i]",
     best_arm_of_a_bandit_is_found),
    ("price forgotten", "mask, config.beta)", "mask, 0.0)", price_pulls_back_to_the_reference),
]  # fmt: skip
direct.faults = [
    ("beta ignored", "beta * better, beta * worse", "better, worse", dpo_by_hand),
    ("likes the worse", "beta * better, beta * worse", "beta * worse, beta * better",
     (dpo_by_hand, a_step_prefers_the_better)),
    ("filling counts", " * answer_mask(answers)", "", log_prob_is_of_whole_answers),
    ("mean, not sum", ".sum(dim=1)", ".mean(dim=1)", log_prob_is_of_whole_answers),
]  # fmt: skip
test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(reinforced, direct)
