"""The calculator's problems, working and judgement."""

import random
import re
from collections import Counter

import pytest
import torch

from lecture_lib.base.errors import CourseError
from lecture_lib.calculator import (
    LARGEST,
    SHORT,
    Problem,
    calculate,
    draw_problems,
    final_answer,
    first_mistake,
    held_out_problems,
    holds,
    parsed,
    right_answer,
    with_steps,
    worked_steps,
)
from lecture_lib.nanogpt import NanoGPT, NanoGPTConfig
from lecture_lib.tokenization import CharTokenizer


def every_problem(operator):
    """A grid of the operator's problems, its limits included."""
    most_a, most_b = LARGEST[operator]
    some_a = {0, 1, 9, 10, 99, 100, *range(0, most_a + 1, max(1, most_a // 60)), most_a}
    some_b = {0, 1, 9, 10, 99, 100, *range(0, most_b + 1, max(1, most_b // 60)), most_b}
    return [Problem(a, operator, b) for a in some_a if a <= most_a for b in some_b if b <= most_b]


@pytest.mark.parametrize("operator", LARGEST)
class TestWorking:
    def test_every_step_is_a_true_equation(self, operator):
        for problem in every_problem(operator):
            assert all(holds(step) for step in worked_steps(problem)), problem

    def test_no_step_has_more_than_two_digits_in_its_result(self, operator):
        for problem in every_problem(operator):
            results = [re.split("[<=>]", step)[1] for step in worked_steps(problem)]
            assert all(len(result) <= 2 for result in results), problem

    def test_all_traces_of_an_operator_have_one_layout(self, operator):
        layouts = {
            re.sub("[<>]", "=", re.sub("[0-9]", "9", ";".join(worked_steps(problem))))
            for problem in every_problem(operator)
            if worked_steps(problem)
        }
        assert len(layouts) == 1

    def test_the_right_text_has_no_mistake(self, operator):
        for problem in every_problem(operator):
            _, written = with_steps(problem)
            assert first_mistake(problem, written) is None
            assert final_answer(written) == right_answer(problem)


def test_answers_can_be_read_off_the_steps():
    for problem in every_problem("+"):
        ends = [step.split("=")[1] for step in worked_steps(problem)]
        assert int(ends[2] + ends[1][1] + ends[0][1]) == problem.a + problem.b
    for problem in every_problem("-"):
        steps = worked_steps(problem)
        signs = "".join(step[1] for step in steps[:3]).lstrip("=")
        digits = "".join(step[-1] for step in reversed(steps[3:]))
        assert int(digits) * (-1 if signs[:1] == "<" else 1) == problem.a - problem.b
    for problem in every_problem("*"):
        first, third, fourth = (worked_steps(problem)[place].split("=")[1] for place in (0, 4, 7))
        assert int(fourth + third[1] + first[1]) == problem.a * problem.b
    for problem in every_problem("/"):
        if problem.b:
            steps = worked_steps(problem)
            assert int("".join(step[0] for step in steps[::2])) == problem.a // problem.b
            assert int(steps[-1][-1]) == problem.a % problem.b


@pytest.mark.parametrize(
    ("step", "true"),
    [
        ("5*6+4=34", True),
        ("5*6+4=35", False),
        ("12-6-0=06", True),
        ("2+3*4=14", True),
        ("2+3*4=20", False),
        ("53-48=5", True),
        ("6/3=2", False),  # no step divides
        ("", False),
        ("5", False),
        ("5+=5", False),
        ("5=5=5", False),
        ("5+5=10;", False),
        ("4<8", True),
        ("8>4", True),
        ("4=4", True),
        ("8<4", False),
        ("4<4", False),
        ("4>4", False),
        ("4=8", False),
        ("14<18", False),  # a step compares digits
        ("<", False),
        ("a+1=2", False),
        ("2**3=8", False),
    ],
)
def test_holds(step, true):
    assert holds(step) is true


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("8+1+0=09;6+3+0=09;4+7+0=11:1199", None),
        ("8+1+0=08;6+3+0=09;4+7+0=11:1199", (0, "miscalculated")),
        ("8+1+0=09;6+4+0=10;4+7+1=12:1209", (1, "misread")),
        ("8+1+0=09;6+3+0=09;4+7+0=11:119", (3, "miscopied")),
        ("8+1+0=09;6+3+0=09:1199", (2, "miscalculated")),  # a step is missing
        ("8+1+0=09;6+3+0=09;4+7+0=11;0+0+0=00:1199", (3, "misread")),  # a true step too many
        ("1199", (0, "miscalculated")),
        ("", (0, "miscalculated")),
    ],
)
def test_first_mistake(written, expected):
    assert first_mistake(Problem(468, "+", 731), written) == expected


def test_a_wrong_answer_to_a_division_by_zero_is_a_mistake():
    assert first_mistake(Problem(5, "/", 0), ":error") is None
    assert first_mistake(Problem(5, "/", 0), ":0r5") == (0, "miscopied")


def test_held_out_problems_are_never_drawn():
    held_back = set(held_out_problems(900, seed=0))
    assert len(held_back) == 3600
    drawn = draw_problems(5000, random.Random(0), held_back)
    assert len(drawn) == 5000 and not held_back & set(drawn)
    assert {problem.operator for problem in drawn} == set(LARGEST)


def test_drawn_problems_are_within_the_limits_and_of_all_lengths():
    drawn = draw_problems(4000, random.Random(0), set())
    for a, operator, b in drawn:
        assert 0 <= a <= LARGEST[operator][0] and 0 <= b <= LARGEST[operator][1]
    sums = [problem for problem in drawn if problem.operator == "+"]
    lengths = {(len(str(problem.a)), len(str(problem.b))) for problem in sums}
    assert lengths == {(i, j) for i in (1, 2, 3) for j in (1, 2, 3)}
    assert any(problem.operator == "/" and problem.b == 0 for problem in drawn)


def test_short_problems_have_short_numbers_as_many_of_each_operator():
    short = held_out_problems(500, seed=1, largest=SHORT)
    assert Counter(problem.operator for problem in short) == dict.fromkeys(LARGEST, 500)
    for operator, most_b in {"+": 99, "-": 99, "*": 9, "/": 9}.items():
        first, second = zip(*((p.a, p.b) for p in short if p.operator == operator), strict=True)
        assert (max(first), max(second)) == (99, most_b)


def test_held_out_problems_have_no_division_by_zero():
    assert not any(p.operator == "/" and p.b == 0 for p in held_out_problems(900, seed=0))


@pytest.mark.parametrize(
    ("text", "problem"),
    [("12*34", (12, "*", 34)), (" 7 - 345 ", (7, "-", 345)), ("007/9", (7, "/", 9)), ("5/0", (5, "/", 0))],
)
def test_parsed(text, problem):
    assert parsed(text) == problem


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1000+1", "at most 999 before [+], and 999 after it"),
        ("100*5", "at most 99 before [*], and 99 after it"),
        ("100/10", "at most 999 before /, and 9 after it"),
        ("twelve*3", "expected two whole numbers"),
        ("3*-4", "expected two whole numbers"),
        ("1+2+3", "expected two whole numbers"),
        ("", "expected two whole numbers"),
        ("٣+٤", "expected two whole numbers"),
    ],
)
def test_refused(text, sentence):
    with pytest.raises(CourseError, match=sentence):
        parsed(text)


def test_calculate_gives_the_steps_and_the_answer(monkeypatch):
    model, asked = torch.nn.Module(), []
    model.block_size = 64

    def write(model, tokenizer, prompts, room):
        asked.append((prompts, room))
        return [with_steps(parsed(prompts[0].rstrip("=")))[1]]

    monkeypatch.setattr("lecture_lib.calculator.write_answers", write)
    assert calculate(model, None, "12*34") == (worked_steps(Problem(12, "*", 34)), "408")
    assert calculate(model, None, "5/0") == ([], "error")
    assert asked[0] == (["012*034="], 56)


def test_calculate_works_with_an_untrained_model():
    tokenizer = CharTokenizer("0123456789+-*/=<>r;:error\n")
    torch.manual_seed(0)
    model = NanoGPT(
        NanoGPTConfig(vocab_size=tokenizer.vocab_size, block_size=64, n_embd=8, n_head=1, n_layer=1)
    )
    steps, answer = calculate(model, tokenizer, "1+1")
    assert isinstance(steps, list) and isinstance(answer, str)
    with pytest.raises(CourseError):
        calculate(model, tokenizer, "1000+1")
