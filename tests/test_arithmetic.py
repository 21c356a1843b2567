"""Problems with exact answers, chapter 17b."""

import math
from collections import Counter

import pytest
import torch
from kit import Elsewhere, Suite, close, refusals, seeded, suite_tests
from torch.nn import functional as F

from lecture_lib import arithmetic
from lecture_lib.fine_tuning import optimise
from lecture_lib.nanogpt import NanoGPT, NanoGPTConfig
from lecture_lib.tokenization import CharTokenizer
from lecture_lib.training import eval_mode

TOKENIZER = CharTokenizer("\n+=0123456789")
MIXED = [("1+2=", "3"), ("34+8=", "42"), ("9=", "")]  # prompts and answers of several lengths

sums = Suite(arithmetic)


def make(**more):
    config = NanoGPTConfig(13, 16, n_embd=32, n_head=2, n_layer=1, **more)
    return seeded(NanoGPT, config, seed=0)


def learned_by_heart():
    """A model that knows three answers of different lengths, after prompts of different lengths."""
    model, known = make(), [("1=", "1"), ("2+2=", "44"), ("303=", "")]
    optimise(model, arithmetic.problem_losses(model, TOKENIZER, lambda n: known, 3), 60, 1e-2)
    return model, known


@sums.holds
def sums_are_written_as_told(library):
    write = library.sum_problem
    assert write(7, 5) == ("007+005=", "2100")
    assert write(999, 1) == ("999+001=", "0001")
    assert write(999, 1, reverse=False) == ("999+001=", "1000")
    assert write(7, 5, width=0) == ("7+5=", "21")
    assert write(1234, 1, width=5, reverse=False) == ("01234+00001=", "001235")


@sums.holds
def each_length_is_drawn_alike(library):
    pairs = library.draw_operands(6000)
    assert pairs.shape == (6000, 2) and pairs.dtype == torch.int64
    for column in pairs.T.tolist():
        lengths = Counter(len(str(number)) for number in column)
        assert set(lengths) == {1, 2, 3} and all(abs(n - 2000) < 200 for n in lengths.values())
        assert set(range(100)) <= set(column) and min(column) == 0 and 985 < max(column) < 1000
    assert len(pairs[pairs[:, 0] < 10, 1].unique()) > 400  # the second doesn't follow from the first


@sums.holds
def only_the_lengths_asked_for_are_drawn(library):
    assert {len(str(n)) for n in library.draw_operands(300, (2, 4)).flatten().tolist()} == {2, 4}


@sums.holds
def targets_are_the_next_characters_of_the_answer(library):
    idx, targets = library.encode_problems(TOKENIZER, MIXED)
    skipped = library.IGNORE
    end, equals, plus = (TOKENIZER.stoi[c] for c in "\n=+")
    one, two, three, four, eight, nine = (TOKENIZER.stoi[c] for c in "123489")
    assert idx.tolist() == [
        [one, plus, two, equals, three, end, end],
        [three, four, plus, eight, equals, four, two],
        [nine, equals, end, end, end, end, end],
    ]
    assert targets.tolist() == [
        [skipped] * 3 + [three, end] + [skipped] * 2,
        [skipped] * 4 + [four, two, end],
        [skipped, end] + [skipped] * 5,
    ]


@sums.holds
def on_request_prompts_count_and_padding_never(library):
    idx, targets = library.encode_problems(TOKENIZER, MIXED, answer_only=False)
    lengths = [len(prompt + answer) for prompt, answer in MIXED]
    for row, wanted, length in zip(idx, targets, lengths, strict=True):
        assert wanted[: length - 1].tolist() == row[1:length].tolist()
        assert wanted[length - 1] == TOKENIZER.stoi["\n"]
        assert (wanted[length:] == library.IGNORE).all()


@sums.holds
def the_loss_is_that_of_fresh_problems(library):
    model, asked = make(), []

    def draw(n):
        asked.append(n)
        return MIXED if len(asked) == 1 else MIXED[:1]

    for answer_only in (True, False):
        asked.clear()
        losses = library.problem_losses(model, TOKENIZER, draw, 3, answer_only)
        for problems in (MIXED, MIXED[:1]):
            idx, targets = library.encode_problems(TOKENIZER, problems, answer_only)
            close(next(losses), F.cross_entropy(model(idx)[0].transpose(1, 2), targets), atol=1e-6)
        assert asked == [3, 3]


@sums.holds
def a_loss_teaches(library):
    loss = next(library.problem_losses(make(), TOKENIZER, lambda n: MIXED, 3))
    assert loss.requires_grad


@sums.holds
def problems_follow_the_model(library):
    with pytest.raises(Elsewhere.Arrived):
        next(library.problem_losses(Elsewhere(), TOKENIZER, lambda n: MIXED, 3))


@sums.holds
def answers_are_written_as_one_by_one(library):
    """Greedily, for prompts of any lengths, more than one batch of them, and with dropout off."""
    model = make(dropout=0.5).train()
    for parameter in model.parameters():  # large weights, so that what it reads matters
        torch.nn.init.normal_(parameter, std=0.5)
    prompts = ["1+1=", "12+34=", "7=", "123+456="] * 70
    alone = {}
    with eval_mode(model):
        for prompt in set(prompts):
            idx = torch.tensor([TOKENIZER.encode(prompt)])
            for _ in range(5):
                idx = torch.cat([idx, model(idx)[0][:, -1:].argmax(-1)], dim=1)
            alone[prompt] = TOKENIZER.decode(idx[0, len(prompt) :]).partition("\n")[0]
    assert library.write_answers(model, TOKENIZER, prompts, 5) == [alone[prompt] for prompt in prompts]
    assert model.training


@sums.holds
def writing_ends_with_the_line(library):
    """An answer ends before its line end, however long others are; nothing is read once all have ended."""
    model, known = learned_by_heart()
    reads, read = [], model.read
    model.read = lambda *given: reads.append(1) or read(*given)
    prompts, answers = (list(texts) for texts in zip(*known, strict=True))
    assert library.write_answers(model, TOKENIZER, prompts, 9) == answers
    assert len(reads) == 3  # two digits and the line end
    assert library.write_answers(model, TOKENIZER, prompts, 1) == ["1", "4", ""]
    assert library.write_answers(model, TOKENIZER, [], 5) == []


@sums.holds
def writing_leaves_the_generator_and_builds_no_graph(library):
    model, grads = make(), []
    model.register_forward_hook(lambda *_: None)
    model.lm_head.register_forward_hook(lambda *_: grads.append(torch.is_grad_enabled()))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    library.write_answers(model, TOKENIZER, ["1+1="], 2)
    assert torch.equal(torch.get_rng_state(), before) and not any(grads)


@sums.holds
def a_match_is_the_whole_answer_and_its_end(library):
    model, known = learned_by_heart()
    assert library.exact_matches(model, TOKENIZER, known).tolist() == [True, True, True]
    others = [("1=", "11"), ("2+2=", "4"), ("2+2=", "44"), ("303=", "3")]
    assert library.exact_matches(model, TOKENIZER, others).tolist() == [False, False, True, False]
    # with more room than the longest answer takes, an answer that goes on is told from one that ends
    assert library.exact_matches(model, TOKENIZER, [("2+2=", "4")]).tolist() == [False]
    assert library.exact_matches(model, TOKENIZER, known, 2).tolist() == [True, True, True]
    assert library.exact_matches(model, TOKENIZER, known, 1).tolist() == [True, False, True]


@sums.holds
def the_interval_solves_its_equation(library):
    """Its ends are the shares from which the one seen is 1.96 standard errors away; they stay from 0 to 1."""
    for right, of in ((1, 2), (5, 10), (1, 1000), (995, 1000), (0, 7), (7, 7), (1, 1)):
        least, most = library.wilson_interval(right, of)
        assert 0 <= least <= right / of <= most <= 1 and least < most
        for end in {least, most} - {0.0, 1.0}:
            error = math.sqrt(end * (1 - end) / of)
            assert abs(abs(right / of - end) - 1.959964 * error) < 1e-9
    assert library.wilson_interval(0, 7)[0] == 0 and library.wilson_interval(7, 7)[1] == 1


test_what_is_refused = refusals(
    ("problems is []; expected at least one", arithmetic.encode_problems, TOKENIZER, []),
    ("each with a prompt", arithmetic.encode_problems, TOKENIZER, [("1=", "1"), ("", "2")]),
    ("unknown character 'x'", arithmetic.encode_problems, TOKENIZER, [("1x", "1")]),
    ("none of them empty", arithmetic.write_answers, make(), TOKENIZER, ["1=", ""], 3),
    ("right is 3, of is 2", arithmetic.wilson_interval, 3, 2),
    ("right is -1, of is 2", arithmetic.wilson_interval, -1, 2),
    ("right is 0, of is 0", arithmetic.wilson_interval, 0, 0),
)

sums.faults = [
    ("not reversed", "total[::-1] if reverse", "total if reverse", sums_are_written_as_told),
    ("always reversed", "if reverse else total", "if True else total", sums_are_written_as_told),
    ("sum not padded", "width + 1 if width else 0", "0", sums_are_written_as_told),
    ("zero drawn less", "torch.where(digits == 1, 0, 10 ** (digits - 1))", "10 ** (digits - 1)",
     each_length_is_drawn_alike),
    ("long numbers may be short", "torch.where(digits == 1, 0, 10 ** (digits - 1))", "0 * digits",
     each_length_is_drawn_alike),
    ("one length for both", "(n, 2))]", "(n, 1)).expand(n, 2)]", each_length_is_drawn_alike),
    ("always the same lengths", "torch.tensor(lengths)[torch", "torch.tensor((1, 2, 3))[torch",
     only_the_lengths_asked_for_are_drawn),
    ("inputs not shifted", "return ids[:, :-1]", "return ids[:, 1:]",
     targets_are_the_next_characters_of_the_answer),
    ("targets not shifted", "ids[:, 1:].where", "ids[:, :-1].where",
     (targets_are_the_next_characters_of_the_answer, on_request_prompts_count_and_padding_never)),
    ("line end doesn't count", "place <= end", "place < end",
     (targets_are_the_next_characters_of_the_answer, on_request_prompts_count_and_padding_never)),
    ("padding counts", "place <= end", "place <= T", on_request_prompts_count_and_padding_never),
    ("prompts always count", "if answer_only else True", "if False else True",
     targets_are_the_next_characters_of_the_answer),
    ("the choice is lost", "draw(batch_size), answer_only)", "draw(batch_size))",
     the_loss_is_that_of_fresh_problems),
    ("another number of problems", "draw(batch_size)", "draw(2 * batch_size)",
     the_loss_is_that_of_fresh_problems),
    ("a loss without a graph", "targets.to(device))[1]", "targets.to(device))[1].detach()", a_loss_teaches),
    ("stays behind", "idx.to(device), targets.to(device)", "idx, targets", problems_follow_the_model),
    ("the unlikeliest", ".argmax(dim=-1", ".argmin(dim=-1",
     (answers_are_written_as_one_by_one, writing_ends_with_the_line)),
    ("padding not told", "caches, pad)", "caches)", answers_are_written_as_one_by_one),
    ("dropout on", "with eval_mode(model):", "if True:", answers_are_written_as_one_by_one),
    ("one batch", "range(0, len(prompts), 256)", "range(0, min(1, len(prompts)), 256)",
     answers_are_written_as_one_by_one),
    ("goes on for ever", " and not (answers == line_end).any(dim=1).all()", "", writing_ends_with_the_line),
    ("ends with the first", ".any(dim=1).all()", ".any()", writing_ends_with_the_line),
    ("the end is kept", '.partition("\\n")[0]', "", writing_ends_with_the_line),
    ("drawn", ".argmax(dim=-1, keepdim=True)", ".softmax(-1).multinomial(1)",
     writing_leaves_the_generator_and_builds_no_graph),
    ("learns while it writes", "@torch.no_grad()\ndef write_answers", "def write_answers",
     writing_leaves_the_generator_and_builds_no_graph),
    ("a prefix will do", "text == answer for", "text.startswith(answer) for",
     a_match_is_the_whole_answer_and_its_end),
    ("no room for the end", "max(map(len, answers)) + 1", "max(map(len, answers))",
     a_match_is_the_whole_answer_and_its_end),
    ("the limit is lost", "max_new_tokens or max(", "max(", a_match_is_the_whole_answer_and_its_end),
    ("a plain interval", "middle = share + z * z / (2 * of)", "middle = share",
     the_interval_solves_its_equation),
    ("too narrow", "z, share = 1.959964,", "z, share = 1.644854,", the_interval_solves_its_equation),
    ("below 0", "max(0.0, (middle - half) / (1 + z * z / of))", "-1e-9",
     the_interval_solves_its_equation),
]  # fmt: skip

test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(sums)
