"""Chapters 14 and 14b up to the reward model: requests, supervised fine-tuning, preferences."""

import copy
import math
from collections import Counter
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import DOUBLE, Suite, close, constructed_and_kept, draw, seeded, suite_tests
from torch import nn
from torch.nn import functional as F

from lecture_lib import fine_tuning, requests, reward_model
from lecture_lib.base.corpus import load_corpus
from lecture_lib.nanogpt import NanoGPT, NanoGPTConfig
from lecture_lib.requests import ANSWER_LENGTH, COUNT_WORDS, PROMPT_LENGTH, SENTENCE_KINDS, Request
from lecture_lib.tokenization import CharTokenizer, load_splits

VOCAB, P, A = 7, 3, 6
ANSWERS = torch.tensor([[3, 4, 0, 0, 0, 0], [5, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6], [2, 2, 2, 2, 2, 0]])
LENGTHS = [3, 2, 6, 6]  # with the line end; the third never ends
PROMPTS = torch.tensor([[1, 2, 3], [0, 0, 1], [6, 5, 4], [2, 2, 2]])

asking, tuning, judging = Suite(requests), Suite(fine_tuning), Suite(reward_model)


def make(dropout=0.0):
    """A tiny GPT, in double precision, with weights large enough that every place matters."""
    model = seeded(NanoGPT, NanoGPTConfig(VOCAB, 12, 8, 2, 2, dropout, tied=False)).double()
    for seed, parameter in enumerate(model.parameters()):
        parameter.data += 0.2 * draw(*parameter.shape, seed=seed)
    return model


def whole_logits(model):
    """The logits of each answer token, from the text as a whole: (4, A, VOCAB)."""
    return model(torch.cat([PROMPTS, ANSWERS], dim=1))[0][:, P - 1 : -1]


# ---------------------------------------------------------------- the requests


@asking.holds
def sentences_answer_requests(library):
    found = library.answer_sentences(
        "KING:\nWhat say you? Not I, my lord.\nI never will, nor\nshall. Ha!\n\nA:\nO no, sir! "
    )
    assert found == ["Not I, my lord.", "O no, sir!", "What say you?"]
    assert [library.request_of(s) for s in found] == [
        library.Request("Say", "N", 4),
        library.Request("Cry", "O", 3),
        library.Request("Ask", "W", 3),
    ]


@asking.holds
def prompts_are_of_one_length(library):
    for kind in SENTENCE_KINDS.values():
        for count, word in COUNT_WORDS.items():
            prompt = library.Request(kind, "Q", count).prompt
            assert len(prompt) == PROMPT_LENGTH and prompt.strip() == f"{kind} in {word}: Q"
            assert prompt.endswith("Q\n")
    assert library.Request("Ask", "Q", 3).prompt[0] == "A"  # the longest one fills it


@asking.holds
def fulfils_to_the_letter(library):
    request = library.Request("Ask", "W", 4)
    assert library.fulfils(request, "What is the matter?")
    for wrong in ("What is the matter.", "That is the matter?", "What is it?", "What is the matter", "", "?"):
        assert not library.fulfils(request, wrong), wrong


@asking.holds
def quality_by_hand(library):
    known = {"what", "is", "the", "matter", "why"}
    request = library.Request("Ask", "W", 4)
    best = dict.fromkeys(("kind", "letter", "count", "real", "fresh"), 1.0)
    assert library.answer_quality(request, "What is the matter?", known) == best
    assert library.answer_quality(request, "", known) == dict.fromkeys(best, 0.0)
    other = library.answer_quality(request, "Why, the blorp is what is!", known)
    expected = {"kind": 0, "letter": 1, "count": 1 / 3, "real": 25 / 36, "fresh": 5 / 6}
    assert other == pytest.approx(expected)
    assert library.answer_quality(request, "What is " * 5 + "?", known)["count"] == 0
    assert library.true_score(request, "Why, why the matter?", known) == pytest.approx(3 / 4)
    assert library.true_score(request, "Why, why the matter.", known) == 0


@asking.holds
def answers_end_at_their_line_end(library):
    tokenizer = CharTokenizer("\nabcdef")
    assert library.answer_texts(tokenizer, ANSWERS) == ["cd", "e", "", "bbbbb"]


@cache
def training_text():
    """The training split, and the tokenizer of the whole."""
    tokenizer, splits = load_splits()
    return tokenizer.decode(splits["train"].tolist()), tokenizer


def small_task(library):
    """A task whose text is one sentence: it knows four words, and has nobody to ask."""
    return library.Task("\nWhat is the matter?\n", CharTokenizer("\n ?!.abcdefghijklmnopqrstuvwxyzWO"))


@asking.holds
def no_dev_or_exam_request_is_learned(library):
    task = library.Task(*training_text())
    assert [len(part) for part in (task.train, task.dev, task.exam)] == [128, 25, 51]
    assert len({*task.train, *task.dev, *task.exam}) == 204 and len(task.lessons) == 1322
    assert {library.request_of(sentence) for sentence in task.lessons} <= set(task.train)


@asking.holds
def ids_are_padded_to_one_length(library):
    task = small_task(library)
    (ids,) = task.encode_answers(["What is it?"]).tolist()
    assert task.tokenizer.decode(ids) == "What is it?" + "\n" * (ANSWER_LENGTH - 11)
    tokenizer = training_text()[1]
    asked = [Request("Ask", "W", 4), Request("Say", "I", 3)]
    rows = library.Task("", tokenizer).encode_prompts(asked).tolist()
    assert [tokenizer.decode(row) for row in rows] == [request.prompt for request in asked]


@asking.holds
def answers_are_judged_by_their_own_request(library):
    task = small_task(library)
    said = ["What is the matter?", "What is the mat?", "What is the matter?", "What what what?"]
    judged = task.judge([Request("Ask", "W", 4), Request("Ask", "W", 3)], task.encode_answers(said))
    third = 2 / 3
    close(judged["count"], torch.tensor([[1, 1], [third, 1]]), atol=1e-6)
    close(judged["real"], torch.tensor([[1, 9 / 16], [1, 1]]), atol=1e-6)
    close(judged["true score"], torch.tensor([[1, 9 / 16], [third, 1 / 3]]), atol=1e-6)
    assert judged["fulfilled"].tolist() == [[1, 1], [0, 1]]
    scores = task.true_scores([Request("Ask", "W", 3)] * 4, task.encode_answers(said))
    close(scores, torch.tensor([third, third * 9 / 16, third, 1 / 3]), atol=1e-6)


def test_one_answer_is_judged_and_no_request_goes_without():
    task, request = small_task(requests), Request("Ask", "W", 4)
    answers = task.encode_answers(["What is the matter?"])
    assert task.judge([request], answers)["fulfilled"].tolist() == [[1]]
    with pytest.raises(ValueError, match="shorter"):
        task.true_scores([request, request], answers)


@asking.holds
def interval_of_the_mean(library):
    """About 1.96 standard errors to either side; the same for the same values, whatever the generator."""
    values = draw(400, seed=3, dtype=torch.float32) + 5
    low, high = library.bootstrap_interval(values)
    error = 1.96 * values.std().item() / 20
    assert abs((high - low) / 2 - error) < 0.15 * error and abs((high + low) / 2 - values.mean()) < 0.02
    torch.rand(3)
    assert library.bootstrap_interval(values) == (low, high)


# ---------------------------------------------------------------- supervised fine-tuning


@tuning.holds
def mask_ends_with_the_answer(library):
    assert library.answer_mask(ANSWERS).sum(dim=1).tolist() == LENGTHS
    assert all(row[:n].all() for row, n in zip(library.answer_mask(ANSWERS), LENGTHS, strict=True))


@tuning.holds
def log_probs_are_the_models(library):
    model = make()
    expected = torch.distributions.Categorical(logits=whole_logits(model)).log_prob(ANSWERS)
    close(library.answer_log_probs(model, PROMPTS, ANSWERS), expected)


@tuning.holds
def loss_is_that_of_the_answers(library):
    model = make()
    targets = ANSWERS.clone()
    for row, n in zip(targets, LENGTHS, strict=True):
        row[n:] = -100
    expected = F.cross_entropy(whole_logits(model).flatten(0, 1), targets.flatten())
    close(library.answer_loss(model, PROMPTS, ANSWERS), expected)


@tuning.holds
def rate_warms_up_and_fades(library):
    """With a constant gradient AdamW moves by the rate itself, so the way shows the schedule."""
    for steps, warm in ((39, 1), (40, 2)):
        lone, places = nn.Linear(1, 1, bias=False), []
        nn.init.zeros_(lone.weight)

        def losses(lone=lone, places=places):
            while True:
                places.append(lone.weight.item())
                yield lone.weight.sum()

        history = library.optimise(lone, losses(), steps=steps, learning_rate=0.1)
        expected, place = [], 0.0
        for step in range(steps):
            expected.append(place)
            place -= 0.1 * min(1, (step + 1) / warm) * (1 - step / steps)
        assert history == pytest.approx(expected, abs=1e-4)
        assert places[:steps] == pytest.approx(expected, abs=1e-4)
        assert lone.weight.item() == pytest.approx(place, abs=1e-4)


def task_and_model(seed=0):
    """Chapter 14's task, and a tiny untrained GPT that can read its prompts and answers."""
    task = requests.Task(*training_text())
    sizes = NanoGPTConfig(65, PROMPT_LENGTH + ANSWER_LENGTH, 8, 2, 1, tied=False)
    return task, seeded(NanoGPT, sizes).eval()


@tuning.holds
def fine_tuning_copies_and_repeats(library):
    """A copy learns, the model stays, and the same seed makes the same copy."""
    task, model = task_and_model()
    before = copy.deepcopy(model.state_dict())
    first = library.fine_tune(model, task, steps=3, seed=5)
    torch.rand(1)
    second = library.fine_tune(model, task, steps=3, seed=5)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert torch.equal(first.state_dict()[name], second.state_dict()[name])
    assert not torch.equal(first.lm_head.weight, model.lm_head.weight)
    other = library.fine_tune(model, task, steps=3, seed=6)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


# ---------------------------------------------------------------- sampling


@tuning.holds
def every_request_gets_its_answers(library):
    """All answers to the first request come first, drawn after the seed 0 whatever came before."""
    task, model = task_and_model()
    answers = library.answer_requests(model, task, task.dev[:3], each=2)
    prompts = task.encode_prompts([task.dev[i] for i in (0, 0, 1, 1, 2, 2)])
    torch.manual_seed(0)
    assert torch.equal(answers, library.sample_answers(model, prompts, ANSWER_LENGTH))


@tuning.holds
def answers_are_those_of_generate(library):
    """The same draws as `generate`, up to each answer's end; then nothing but line ends."""
    model = make().eval()
    torch.manual_seed(5)
    expected = model.generate(PROMPTS.repeat(8, 1), A)[:, P:]
    torch.manual_seed(5)
    answers = library.sample_answers(model, PROMPTS.repeat(8, 1), A)
    for ours, theirs in zip(answers.tolist(), expected.tolist(), strict=True):
        n = theirs.index(0) + 1 if 0 in theirs else A
        assert ours == theirs[:n] + [0] * (A - n)
    assert 0 < (answers == 0).any(dim=1).sum() < len(answers)


@tuning.holds
def many_prompts_are_answered_in_turn(library):
    """128 at a time, with the draws that two calls would take."""
    model, prompts = make().eval(), PROMPTS.repeat(33, 1)  # 132 of them
    torch.manual_seed(5)
    together = library.sample_answers(model, prompts, A)
    torch.manual_seed(5)
    apart = [library.sample_answers(model, some, A) for some in (prompts[:128], prompts[128:])]
    assert torch.equal(together, torch.cat(apart))


@tuning.holds
def dropout_is_off_while_sampling(library):
    model = make(dropout=0.5).train()
    torch.manual_seed(5)
    answers = library.sample_answers(model, PROMPTS, A)
    assert model.training
    torch.manual_seed(5)
    assert torch.equal(answers, library.sample_answers(model.eval(), PROMPTS, A)) and not model.training


# ---------------------------------------------------------------- the reward model


@judging.holds
def verdicts_follow_bradley_and_terry(library):
    scores = torch.tensor([[0.9, 0.7, 0.4, 0.1]]).repeat(20_000, 1)
    better, worse = library.judge_pairs(scores, sharpness=3.0).unbind(-1)
    for pair, (i, j) in enumerate([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]):
        assert {i, j} == set(better[:, pair].tolist()) and (better[:, pair] + worse[:, pair] == i + j).all()
        share = (better[:, pair] == i).double().mean().item()
        assert abs(share - 1 / (1 + math.exp(-3 * (scores[0, i] - scores[0, j])))) < 0.015


@judging.holds
def four_answers_to_each_prompt_are_compared(library):
    task, model = task_and_model()
    torch.manual_seed(3)
    labels = library.label_answers(model, task, task.dev[:3])
    assert torch.equal(labels.rows(torch.tensor([2, 0])), torch.tensor([8, 9, 10, 11, 0, 1, 2, 3]))
    rows = labels.rows(torch.tensor([1]))
    assert torch.equal(labels.prompts[rows], task.encode_prompts([task.dev[1]] * 4))
    assert torch.equal(labels.scores[1], task.true_scores([task.dev[1]] * 4, labels.answers[rows]))
    assert labels.answers.shape == (12, ANSWER_LENGTH) and labels.verdicts.shape == (3, 6, 2)


def rewarding(library, opinion=True):
    model = library.RewardModel(make()).double()
    if opinion:
        model.head.weight.data = draw(1, 8, seed=2)
    return model


@judging.holds
def has_no_opinion_at_first(library):
    rewards = rewarding(library, opinion=False)(PROMPTS, ANSWERS)
    assert rewards.shape == (4,) and (rewards == rewards[0]).all()


@judging.holds
def reads_off_at_the_last_token(library):
    model, body = rewarding(library), make()
    x = body.body(body.embed(torch.cat([PROMPTS, ANSWERS], dim=1)))
    last = torch.stack([x[i, P + n - 1] for i, n in enumerate(LENGTHS)])
    close(model(PROMPTS, ANSWERS), model.head(last).squeeze(-1))


@judging.holds
def filling_does_not_matter(library):
    model = rewarding(library)
    short = ANSWERS[:2, :3]
    close(model(PROMPTS[:2], short), model(PROMPTS[:2], ANSWERS[:2]))


@judging.holds
def leaves_the_model_alone(library):
    model = make(dropout=0.5).train()
    before = copy.deepcopy(model.state_dict())
    judge = library.RewardModel(model).double()
    nn.init.ones_(judge.head.weight)
    assert torch.equal(judge(PROMPTS, ANSWERS), judge(PROMPTS, ANSWERS))  # no dropout
    optimizer = torch.optim.SGD(judge.parameters(), lr=1.0)
    judge(PROMPTS, ANSWERS).square().sum().backward()
    optimizer.step()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@judging.holds
def builds_its_head_alone(library):
    """All else is a copy of the model, without the layer of logits."""
    model = make()
    built, kept = constructed_and_kept(lambda: library.RewardModel(model))
    given = Counter(type(module).__name__ for module in model.modules())
    assert built == {"RewardModel": 1, "Linear": 1} and kept == built + given - Counter(["Linear"])


@judging.holds
def standard_answers_have_mean_0_and_std_1(library):
    model = rewarding(library)
    order = model(PROMPTS, ANSWERS).argsort()
    for _ in range(2):  # twice, as the second time mean and standard deviation aren't 0 and 1
        nn.init.normal_(model.head.bias)
        model.standardise(model(PROMPTS, ANSWERS).detach())
        rewards = model(PROMPTS, ANSWERS)
        close(rewards.mean(), torch.zeros((), dtype=DOUBLE))
        close(rewards.std(), torch.ones((), dtype=DOUBLE))
    assert torch.equal(rewards.argsort(), order)


@judging.holds
def preference_loss_by_hand(library):
    ahead, level = torch.tensor([math.log(3)]).double(), torch.zeros(1).double()
    assert library.preference_loss(ahead, level).item() == pytest.approx(-math.log(3 / 4))
    assert library.preference_loss(level, ahead).item() == pytest.approx(-math.log(1 / 4))
    assert library.preference_loss(level, level).item() == pytest.approx(math.log(2))
    assert library.preference_loss(ahead + 7, level + 7).item() == pytest.approx(-math.log(3 / 4))
    both = library.preference_loss(torch.cat([ahead, level]), torch.cat([level, ahead])).item()
    assert both == pytest.approx(-(math.log(3 / 4) + math.log(1 / 4)) / 2)


@judging.holds
def verdicts_split_better_and_worse(library):
    values = torch.tensor([[10, 11, 12, 13], [20, 21, 22, 23]])
    verdicts = torch.tensor([[[0, 1], [3, 2]], [[2, 0], [1, 3]]])
    better, worse = library.split_verdicts(values, verdicts)
    assert better.tolist() == [[10, 13], [22, 21]] and worse.tolist() == [[11, 12], [20, 23]]


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, VOCAB - 1), min_size=A, max_size=A))
def test_the_mask_of_any_answer(row):
    n = row.index(0) + 1 if 0 in row else A
    assert fine_tuning.answer_mask(torch.tensor([row]))[0].tolist() == [True] * n + [False] * (A - n)


def test_the_corpus_answers_the_requests():
    text = load_corpus()
    known = set(requests.words_in(text))
    found = requests.answer_sentences(text)
    assert len(found) > 2_000 and CharTokenizer(text).stoi["\n"] == fine_tuning.LINE_END
    for sentence in found:
        request = requests.request_of(sentence)
        assert len(sentence) < ANSWER_LENGTH and requests.fulfils(request, sentence)
        parts = requests.answer_quality(request, sentence, known)
        assert all(parts[name] == 1 for name in ("kind", "letter", "count", "real")), sentence


def test_what_is_asked_for_is_worth_most():
    """Whatever is wrong with an answer costs something: no one trick serves two requests."""
    known = {"what", "is", "the", "matter"}
    best = requests.true_score(Request("Ask", "W", 4), "What is the matter?", known)
    others = [Request("Cry", "W", 4), Request("Ask", "M", 4), Request("Ask", "W", 5)]
    assert best == 1 and all(requests.true_score(r, "What is the matter?", known) < 0.7 for r in others)


asking.faults = [
    ("any number of words", " and len(s.split()) in COUNT_WORDS", "", sentences_answer_requests),
    ("padded behind", ".rjust(", ".ljust(", prompts_are_of_one_length),
    ("kind forgotten", "answer[-1] in SENTENCE_KINDS and request_of(answer) == request",
     "request_of(answer[:-1] + '?') == request", fulfils_to_the_letter),
    ("summed, not multiplied", "math.prod(answer_quality(request, answer, known).values())",
     "sum(answer_quality(request, answer, known).values()) / 5", quality_by_hand),
    ("words unknown", "word in known", "True", quality_by_hand),
    ("the unended are shown", ' if "\\n" in text else ""', "", answers_end_at_their_line_end),
    ("exam sentences are learned", " if request_of(sentence) in set(self.train)", "",
     no_dev_or_exam_request_is_learned),
    ("dev is in the training set", "requests[:128], ", "requests[:140], ", no_dev_or_exam_request_is_learned),
    ("answers padded in front", "s.ljust(", "s.rjust(", ids_are_padded_to_one_length),
    ("one request after the other", "for request in requests for _ in range(each)",
     "for _ in range(each) for request in requests", answers_are_judged_by_their_own_request),
    ("half of the interval", "[0.025, 0.975]", "[0.25, 0.75]", interval_of_the_mean),
    ("a global generator", ", generator=generator", "", interval_of_the_mean),
]  # fmt: skip

PLACES = "answers], dim=1)[:, :-1]\n    return model.body(model.embed(idx))[:, prompts.shape[1] - 1 :]"
tuning.faults = [
    ("line end not learned", "ends.cumsum(dim=1) - ends", "ends.cumsum(dim=1)", mask_ends_with_the_answer),
    ("filling counts", "ends.cumsum(dim=1) - ends == 0", "ends == ends", mask_ends_with_the_answer),
    ("loss on the prompt",
     "-masked_mean(answer_log_probs(model, prompts, answers), answer_mask(answers))",
     "model(torch.cat([prompts, answers], 1)[:, :-1], torch.cat([prompts, answers], 1)[:, 1:])[1]",
     loss_is_that_of_the_answers),
    ("one place too late", PLACES, PLACES.replace("[:, :-1]", "").replace("[1] - 1", "[1]"),
     log_probs_are_the_models),
    ("one place too early", "prompts.shape[1] - 1 :]", "prompts.shape[1] - 2 : -1]",
     log_probs_are_the_models),
    ("the prompt unread", "torch.cat([prompts, answers", "torch.cat([prompts * 0, answers",
     log_probs_are_the_models),
    ("not normalised", "logits.log_softmax(dim=-1)", "logits", log_probs_are_the_models),
    ("mean over all places", "/ mask.sum()", "/ mask.numel()", loss_is_that_of_the_answers),
    ("loss upside down", "return -masked_mean", "return masked_mean", loss_is_that_of_the_answers),
    ("rate does not fade", " * (1 - step / steps)", "", rate_warms_up_and_fades),
    ("rate does not warm up", "steps // 20", "steps // 100", rate_warms_up_and_fades),
    ("gradients pile up", "optimizer.zero_grad()", "pass", rate_warms_up_and_fades),
    ("all prompts at once", ".split(128)", ".split(1000)", many_prompts_are_answered_in_turn),
    ("dropout on in sampling", "with eval_mode(model):", "if True:", dropout_is_off_while_sampling),
    ("the model itself is tuned", "tuned = copy.deepcopy(model)", "tuned = model",
     fine_tuning_copies_and_repeats),
    ("tuned with any seed", "torch.manual_seed(seed)", "pass", fine_tuning_copies_and_repeats),
    ("answered with any seed", "torch.manual_seed(0)\n", "pass\n", every_request_gets_its_answers),
    ("talks on after the end", "answers.where(answer_mask(answers), LINE_END)", "answers",
     answers_are_those_of_generate),
]  # fmt: skip

judging.faults = [
    ("verdicts without noise", "torch.rand_like(first) <", "0.5 <", verdicts_follow_bradley_and_terry),
    ("verdicts upside down", "(first - second)", "(second - first)", verdicts_follow_bradley_and_terry),
    ("sharpness ignored", "sigmoid(sharpness * (", "sigmoid(1.0 * (", verdicts_follow_bradley_and_terry),
    ("rows of other prompts", "(4 * i[:, None]", "(i[:, None]", four_answers_to_each_prompt_are_compared),
    ("opinions at first", "nn.init.zeros_(self.head.weight)", "pass", has_no_opinion_at_first),
    ("read off before the end", ".sum(dim=1) - 1", ".sum(dim=1) - 2", reads_off_at_the_last_token),
    ("read off at the filling", "answer_mask(answers).sum(dim=1) - 1", "answers.shape[1] - 1",
     filling_does_not_matter),
    ("shares the model's weights", "copy.deepcopy(model).eval()", "model.eval()", leaves_the_model_alone),
    ("dropout on in the judge", "copy.deepcopy(model).eval()", "copy.deepcopy(model)",
     leaves_the_model_alone),
    ("keeps a layer that it doesn't use", "del self.gpt.lm_head", "pass", builds_its_head_alone),
    ("mean forgotten", "- self.mean) / self.std", ") / self.std", standard_answers_have_mean_0_and_std_1),
    ("second time forgets the first", "self.mean + self.std * rewards.mean()", "rewards.mean()",
     standard_answers_have_mean_0_and_std_1),
    ("likes the worse", "better - worse", "worse - better", preference_loss_by_hand),
    ("likes the sum", "better - worse", "better + worse", preference_loss_by_hand),
    ("probabilities, no logs", "-F.logsigmoid(", "-torch.sigmoid(", preference_loss_by_hand),
    ("better and worse swapped", "better, worse = verdicts", "worse, better = verdicts",
     verdicts_split_better_and_worse),
]  # fmt: skip
test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(asking, tuning, judging)
