"""Checks of the exercises of 17c_calculator."""

from collections.abc import Callable, Mapping

from lecture_lib.calculator import addition_steps, multiplication_steps

from .asking import Wrong, ask, plain_number
from .checking import exercise


def expect_text(value: object, expected: str, what: str, slips: Mapping[str, str]) -> None:
    """Wrong unless `value` is this text; a value that is one of `slips` gets its sentence."""
    if not isinstance(value, str):
        raise Wrong(f"{what}: expected a text, {expected!r}, got {value!r}.")
    if value == expected:
        return
    for sentence, wrong in slips.items():
        if value == wrong:
            raise Wrong(sentence)
    raise Wrong(f"{what}: expected {expected!r}, got {value!r}.")


@exercise("17c.1", Callable, "a function of a multiplication's steps that gives the product as a text")
def read_off(answer: Callable) -> str:
    for a, b in ((58, 56), (99, 98), (12, 34), (3, 4), (25, 4), (0, 7)):
        steps = multiplication_steps(a, b)
        first, second, third, fourth = (steps[place].split("=")[1] for place in (0, 2, 4, 7))
        slips = {
            "A number doesn't begin with zeros, unless it is 0.": fourth + third[1] + first[1],
            "The ones come from the first step, but they stand last in the answer.": (
                first[1] + third[1] + fourth
            ),
            "The last digit of the second result goes into the third one; the column's digit is the third's.": (
                str(int(fourth + second[1] + first[1]))
            ),
            "Of the first and the third result only the last digit stays in its column; the other is carried.": (
                str(int(fourth + third + first))
            ),
            "0 is written as one zero, not as an empty text.": "" if a * b == 0 else "-",
        }
        expect_text(ask(answer, steps), str(a * b), f"For {steps}", slips)
    return (
        "An answer that doesn't agree with its own working can be found without knowing the right one. So can a "
        "step that isn't true, and a step that doesn't follow from the one before it."
    )


@exercise("17c.2", Callable, "a function of a and b that gives a list of steps")
def euclid(answer: Callable) -> str:
    for a, b in ((48, 36), (1071, 462), (89, 55), (7, 7), (12, 4), (13, 1)):
        expected, x, y = [], a, b
        while y:
            expected += [f"{x // y}*{y}={x - x % y}", f"{x}-{x - x % y}={x % y}"]
            x, y = y, x % y
        given = ask(answer, a, b)
        if not isinstance(given, list | tuple) or not all(isinstance(step, str) for step in given):
            raise Wrong(f"For {a} and {b}: expected a list of texts, got {given!r}.")
        given = list(given)
        if given == expected[:-2]:
            raise Wrong(
                "You stop before the division that leaves no remainder, but its divisor is the answer."
            )
        for place, (step, due) in enumerate(zip(given, expected, strict=False)):
            if step != due:
                raise Wrong(f"For {a} and {b}: step {place + 1} is {step!r}; expected {due!r}.")
        if len(given) != len(expected):
            raise Wrong(f"For {a} and {b}: expected {len(expected)} steps, got {len(given)}: {given}.")
    return (
        "The number of steps isn't fixed: it depends on the numbers, and neighbours in Fibonacci's sequence, like 89 "
        "and 55, need the most. A model that writes steps can take as many as a problem needs."
    )


BROKEN = (  # steps, the first that is broken, and the sentence for an answer that misses it
    (addition_steps(345, 678), None, "All is well with the steps of 345 + 678."),
    (["5+8+0=13", "4+7+0=11", "3+6+1=10"], 1, "Step 1 adds 0, but step 0 carried 1; the equation is true."),
    (["5+8+0=13", "4+7+1=13", "3+6+1=10"], 1, "Step 1 isn't true: 4+7+1 is 12."),
    (["5+8+1=14", "4+7+1=12"], 0, "Nothing has been carried before the first step, so it must add 0."),
    (["5+8+0=12", "4+7+1=12"], 0, "Step 0 isn't true: 5+8+0 is 13."),
    (["1+1+0=02", "4+7+2=13"], 1, "The carry is the first digit of 02, not the second."),
    (["5+8+0=13", "4+7+1=12", "3+6+1=10", "1+2+0=03"], 3, "The last step adds 0, but 10 carries 1."),
    (["5+8+0=13", "4+7+1=11", "3+6+0=09"], 1, "The first of two broken steps is asked for, step 1."),
    (["1+2+0=03"], None, "One true step without a carry is in order."),
)


@exercise("17c.3", Callable, "a function of an addition's steps that gives a step's number or None")
def broken(answer: Callable) -> str:
    for steps, expected, sentence in BROKEN:
        given = ask(answer, list(steps))
        given = given if given is None else plain_number(given)
        if given != expected or isinstance(given, str | float):
            raise Wrong(f"For {steps} expected {expected}, got {given!r}. {sentence}")
    return (
        "Two kinds of mistake are left. An answer that was miscopied is found by reading it off; misread digits only "
        "by looking at the prompt, since a working can be true and connected and still belong to another problem."
    )


VOTES = (  # texts, the winner, and the sentence for a function that elects another
    (["8*7=56:56", "8*7=54:54", "8*7=56:56"], "56", "Two of three texts answer 56."),
    (["a:100", "b:20", "c:20"], "20", "Votes are counted, numbers aren't compared."),
    (
        ["1:7", "2:7", "3:8"],
        "7",
        "What counts is the answer after the colon: different workings may reach the same one.",
    ),
    (["5+8+0=13", "5+8+0=13", "x:13"], "13", "A text without a colon has no answer, so only one text votes."),
    (["a:9", "b:10", "c:10", "d:9"], "9", "Both have two votes, and 9 was reached first."),
    (["a:10", "b:9", "c:9", "d:10"], "10", "Both have two votes, and 10 was reached first."),
    (["none", ""], None, "Nobody votes."),
)


@exercise("17c.4", Callable, "a function of texts that gives the answer with the most votes, or None")
def majority(answer: Callable) -> str:
    for texts, expected, sentence in VOTES:
        given = ask(answer, list(texts))
        if given != expected or not isinstance(given, str | None):
            raise Wrong(f"For {texts} expected {expected!r}, got {given!r}. {sentence}")
    return (
        "There are many ways to go wrong, and they scatter; the right answer is where many workings meet. That costs as "
        "many texts as have votes."
    )
