"""A calculator.

From notebooks/17c_calculator.ipynb.
Video 1:56:20.
Written by `lecture promote`: edit the notebook, not this file.
"""

import random
import re
from itertools import zip_longest
from math import prod
from typing import NamedTuple

from lecture_lib.arithmetic import write_answers
from lecture_lib.base.errors import CourseError
from lecture_lib.nanogpt import NanoGPT
from lecture_lib.tokenization import CharTokenizer

__all__ = [
    "LARGEST",
    "SHORT",
    "Problem",
    "addition_steps",
    "calculate",
    "comparison_steps",
    "digits",
    "directly",
    "division_steps",
    "draw_problems",
    "final_answer",
    "first_mistake",
    "held_out_problems",
    "holds",
    "multiplication_steps",
    "parsed",
    "product_and_sums",
    "prompt_of",
    "random_number",
    "right_answer",
    "subtraction_steps",
    "with_steps",
    "worked_steps",
]

LARGEST = {"+": (999, 999), "-": (999, 999), "*": (99, 99), "/": (999, 9)}  # what the two numbers may be


class Problem(NamedTuple):
    """Two whole numbers and what is to be done with them."""

    a: int
    operator: str  # a key of LARGEST
    b: int


def prompt_of(problem: Problem) -> str:
    """The problem as a model reads it, each number with at least three digits."""
    return f"{problem.a:03}{problem.operator}{problem.b:03}="


def right_answer(problem: Problem) -> str:
    """What a calculator should say: a number, quotient and remainder like 6r2, or error."""
    a, operator, b = problem
    if operator == "/":
        return f"{a // b}r{a % b}" if b else "error"
    return str({"+": a + b, "-": a - b, "*": a * b}[operator])


def random_number(most: int, rng: random.Random) -> int:
    """A number of 0 to `most`, which is 9, 99 or 999; in four draws of ten, more likely a short one."""
    limit = most if rng.random() < 0.6 else 10 ** rng.randint(1, len(str(most))) - 1
    return rng.randint(0, limit)


def draw_problems(count: int, rng: random.Random, held_back: set[Problem]) -> list[Problem]:
    """Random problems, each operator equally often on average; none of those `held_back`."""
    drawn = []
    while len(drawn) < count:
        operator = rng.choice(list(LARGEST))
        a, b = (random_number(most, rng) for most in LARGEST[operator])
        problem = Problem(a, operator, b)
        if problem not in held_back:
            drawn.append(problem)
    return drawn


SHORT = {"+": (99, 99), "-": (99, 99), "*": (99, 9), "/": (99, 9)}


def held_out_problems(count: int, seed: int, largest: dict[str, tuple[int, int]] = LARGEST) -> list[Problem]:
    """`count` different problems of each operator, evenly from all of `largest`, without division by 0."""
    rng, chosen = random.Random(seed), {}
    for operator, (most_a, most_b) in largest.items():
        while sum(problem.operator == operator for problem in chosen) < count:
            a, b = rng.randint(0, most_a), rng.randint(operator == "/", most_b)
            chosen[Problem(a, operator, b)] = None
    return list(chosen)


def digits(n: int) -> list[int]:
    """The last three decimal digits, the ones first."""
    return [n // 10**place % 10 for place in range(3)]


def addition_steps(a: int, b: int) -> list[str]:
    """Column by column, from the ones: digit + digit + carry = carry and digit."""
    steps, carry = [], 0
    for x, y in zip(digits(a), digits(b), strict=True):
        steps.append(f"{x}+{y}+{carry}={x + y + carry:02}")
        carry = (x + y + carry) // 10
    return steps


def comparison_steps(a: int, b: int) -> list[str]:
    """Digit by digit, from the hundreds, with <, = or > in between."""
    pairs = zip(reversed(digits(a)), reversed(digits(b)), strict=True)
    return [f"{x}{'<' if x < y else '>' if x > y else '='}{y}" for x, y in pairs]


def subtraction_steps(a: int, b: int) -> list[str]:
    """Column by column, for a >= b: ten more than the digit - digit - borrowed = not borrowed, and digit."""
    steps, borrowed = [], 0
    for x, y in zip(digits(a), digits(b), strict=True):
        rest = 10 + x - y - borrowed
        steps.append(f"1{x}-{y}-{borrowed}={rest:02}")
        borrowed = int(rest < 10)
    return steps


def product_and_sums(x: int, y: int, *more: int) -> list[str]:
    """The product of two digits, then the sums of it and each further number, one by one."""
    total = x * y
    steps = [f"{x}*{y}={total:02}"]
    for number in more:
        steps.append(f"{total:02}+{number}={total + number:02}")
        total += number
    return steps


def multiplication_steps(a: int, b: int) -> list[str]:
    """Four products of digits, for a, b < 100; to each is added what is carried, and what stands above it."""
    (x, x10, _), (y, y10, _) = digits(a), digits(b)
    first = x * y
    second = x10 * y + first // 10  # second, and the last digit of first: the first row
    third = x * y10 + second % 10
    steps = product_and_sums(x, y) + product_and_sums(x10, y, first // 10)
    steps += product_and_sums(x, y10, second % 10)
    return steps + product_and_sums(x10, y10, second // 10, third // 10)


def division_steps(a: int, b: int) -> list[str]:
    """Long division from the hundreds on, for b of 1 to 9: quotient * b, and what it leaves."""
    steps, rest = [], 0
    for digit in reversed(digits(a)):
        value = 10 * rest + digit
        product, rest = value - value % b, value % b
        steps += [f"{product // b}*{b}={product:02}", f"{value:02}-{product:02}={rest}"]
    return steps


def worked_steps(problem: Problem) -> list[str]:
    """The steps of any problem within LARGEST; none for division by 0."""
    a, operator, b = problem
    if operator == "-":
        return comparison_steps(a, b) + subtraction_steps(max(a, b), min(a, b))
    if operator == "/":
        return division_steps(a, b) if b else []
    return addition_steps(a, b) if operator == "+" else multiplication_steps(a, b)


def with_steps(problem: Problem) -> tuple[str, str]:
    """Prompt, and what the model learns to write: the steps, a colon, the answer."""
    return prompt_of(problem), ";".join(worked_steps(problem)) + ":" + right_answer(problem)


def directly(problem: Problem) -> tuple[str, str]:
    """Prompt and answer, without steps."""
    return prompt_of(problem), right_answer(problem)


def final_answer(written: str) -> str:
    """What stands after the last colon, or everything if there is none."""
    return written.rpartition(":")[2]


def holds(step: str) -> bool:
    """Whether a step is true, like 5+8+0=13, 8*6=48 or 4<8; False for any text that isn't a step."""
    if found := re.fullmatch(r"(\d)([<>])(\d)", step):
        return found[1] < found[3] if found[2] == "<" else found[1] > found[3]
    if not re.fullmatch(r"\d+([-+*]\d+)*=\d+", step):
        return False
    left, right = step.split("=")
    terms = re.findall(r"(-?)(\d+(?:\*\d+)*)", left)
    values = (prod(map(int, factors.split("*"))) * (-1 if sign else 1) for sign, factors in terms)
    return sum(values) == int(right)


def first_mistake(problem: Problem, written: str) -> tuple[int, str] | None:
    """Where a trace goes wrong first: how many steps are right before, and the kind of mistake.

    "miscalculated": the step isn't true; "misread": it's true, but not the one due; "miscopied": all steps
    are right and the answer is wrong. None if there is no mistake.
    """
    steps, right = written.rpartition(":")[0].split(";"), worked_steps(problem) or [""]
    for place, (step, due) in enumerate(zip_longest(steps, right)):
        if step != due:
            kind = "misread" if step and holds(step) else "miscalculated"
            return place, kind
    copied = final_answer(written) == right_answer(problem)
    return None if copied else (len(worked_steps(problem)), "miscopied")


def parsed(text: str) -> Problem:
    """The problem that a text like "12*34" asks; CourseError, in a sentence, for what isn't learned."""
    found = re.fullmatch(r"\s*(\d+)\s*([-+*/])\s*(\d+)\s*", text, re.ASCII)
    if not found:
        raise CourseError(f"{text!r}: expected two whole numbers with + - * or / between them, like 12*34")
    problem = Problem(int(found[1]), found[2], int(found[3]))
    most_a, most_b = LARGEST[problem.operator]
    if problem.a > most_a or problem.b > most_b:
        limits = f"at most {most_a} before {problem.operator}, and {most_b} after it"
        raise CourseError(f"{text}: this calculator has learned numbers of {limits}")
    return problem


def calculate(model: NanoGPT, tokenizer: CharTokenizer, text: str) -> tuple[list[str], str]:
    """The steps that a model trained on `with_steps` writes for a text like "12*34", and its answer.

    CourseError, in a sentence, for a problem that it wasn't trained on.
    """
    room = model.block_size - 8  # after the prompt
    (written,) = write_answers(model, tokenizer, [prompt_of(parsed(text))], room)
    steps, _, answer = written.rpartition(":")
    return steps.split(";") if steps else [], answer
