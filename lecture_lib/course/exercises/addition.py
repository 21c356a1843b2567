"""Checks of the exercises of 17b_addition."""

from collections.abc import Callable

from .asking import Wrong, ask, expect, several, single, truth
from .checking import exercise


def carried(a: int, b: int) -> list[bool]:
    """For each column, units first, whether it makes or passes on a carry."""
    return [a % 10**place + b % 10**place >= 10**place for place in range(1, len(str(max(a, b))) + 1)]


@exercise("17b.1", Callable, "a function of a and b that gives the number of carries")
def carry_count(answer: Callable) -> str:
    pairs = ((123, 454), (7, 5), (555, 555), (95, 7), (450, 540), (999, 1), (38, 0), (4567, 45_678), (0, 0))
    for a, b in pairs:
        columns = list(zip(str(a)[::-1].ljust(6, "0"), str(b)[::-1].ljust(6, "0"), strict=True))
        alone = sum(int(x) + int(y) > 9 for x, y in columns)
        passing = sum(int(x) + int(y) >= 9 for x, y in columns)
        expected = sum(carried(a, b))
        slips = {
            f"In {a} + {b} you miss a carry that a column of 9 passes on: it makes one only with what comes in.": alone,
            f"In {a} + {b} you count every column of 9; without a carry that comes in, it makes none.": passing,
            f"In {a} + {b} you count the digits by which the sum is longer; carries inside it count, too.": (
                len(str(a + b)) - len(str(max(a, b)))
            ),
        }
        slips = {sentence: wrong for sentence, wrong in slips.items() if wrong != expected}
        expect(ask(answer, a, b), expected, f"For {a} + {b}", slips)
    return (
        "Of two random three-digit numbers, each column makes a carry about half the time. How many there are matters "
        "little to the model; how far one of them runs is what the plain model stumbles over."
    )


@exercise("17b.2", Callable, "a function of x, y and written that says whether there is a carry")
def standing_carry(answer: Callable) -> str:
    for x in range(10):
        for y in range(10):
            for came_in in (0, 1):
                total = x + y + came_in
                said = single(ask(answer, x, y, total % 10))
                said = bool(said) if said in (0, 1) else truth(said)
                if said != (total > 9):
                    raise Wrong(about_carry(x, y, came_in))
    return (
        "So the digit that was written last holds all that the next one needs to know of the columns to the right. "
        "Written the other way round, there is no such digit yet."
    )


def about_carry(x: int, y: int, came_in: int) -> str:
    """What to say of a column that was judged wrongly."""
    total = x + y + came_in
    place = f"For {x} + {y} with {total % 10} written"
    if x + y == 9:
        came = "a carry came in, so one goes out" if came_in else "no carry came in, and none goes out"
        return f"{place}: {came}. The two digits alone can't tell; the written one can."
    if total > 9 and total % 10 in (x, y):
        return f"{place}: compare what is written with the sum of both digits, not with one of them."
    verdict = "there is a carry" if total > 9 else "there is no carry"
    return f"{place}, {total} in all, {verdict}."


@exercise("17b.3", Callable, "a function of written and answer, two texts, that gives True or False")
def exact_to_the_end(answer: Callable) -> str:
    cases = (
        ("9750\n", "9750", True, ""),
        ("9750\n+12", "9750", True, "what comes after the line end doesn't matter; the answer was over."),
        (
            "97501\n",
            "9750",
            False,
            "the answer has another digit before its line end, so it's another number.",
        ),
        ("9750", "9750", False, "there is no line end: the model hasn't said that it is done."),
        ("975\n0", "9750", False, "the answer ends at its line end, one digit too early."),
        ("\n9750\n", "9750", False, "the answer ends at the first line end, before its first digit."),
        ("975\n", "9750", False, "a digit is missing."),
        ("19750\n", "9750", False, "the right digits stand at the end, but not alone."),
        ("09750\n", "9750", False, "as numbers they may be equal, but the text differs: digits have places."),
        ("\n", "", True, "an empty answer that is closed is exact."),
    )
    for written, wanted, right, why in cases:
        if truth(ask(answer, written, wanted)) != right:
            raise Wrong(
                f"For {written!r} and the answer {wanted!r} expected {right}: {why or 'it is exact.'}"
            )
    return (
        "A metric that is fooled by a prefix makes every model look better, and those most that don't know when to "
        "stop."
    )


@exercise("17b.4", Callable, "a function of a and b that gives two texts, a prompt and an answer")
def subtraction(answer: Callable) -> str:
    for a, b in ((500, 123), (123, 500), (7, 7), (0, 999), (42, 40), (999, 0)):
        given = several(ask(answer, a, b), 2, "Expected two texts, a prompt and an answer.")
        prompt, said = given
        if prompt != f"{a:03}-{b:03}=":
            raise Wrong(f"For {a} and {b} the prompt should be '{a:03}-{b:03}=', got {prompt!r}.")
        digits, sign = f"{(a - b) % 1000:03}", "-" if a < b else "+"
        slips = {
            f"{sign}{digits[::-1]}": "the sign stands first, where it depends on all columns; write it last.",
            f"{digits}{sign}": "the units come first, as in the sums.",
            f"{digits[::-1]}": "the sign is missing: 500 apart up or down gives the same three digits.",
            f"{abs(a - b):03}"[::-1] + sign: (
                "these are the digits of the distance, whose units depend on which number is larger, "
                "so on all columns; take the difference modulo 1000."
            ),
        }
        right = digits[::-1] + sign
        if said != right:
            why = slips.get(said, f"expected {right!r}.") if isinstance(said, str) else "expected a text."
            raise Wrong(f"For {a} - {b} your answer is {said!r}: {why}")
    return (
        "Modulo 1000, each digit needs its own column and the borrow from the one to its right; the sign is the last "
        "borrow. Processors store negative numbers this way, to the base 2."
    )


@exercise("17b.5", Callable, "a function of a text that gives a list of numbers, one for each character")
def columns_of(answer: Callable) -> str:
    cases = {
        "7+5=21\n": [1, 0, 1, 0, 1, 2, 0],
        "12+345=753\n": [2, 1, 0, 3, 2, 1, 0, 1, 2, 3, 0],
        "1000+1=": [4, 3, 2, 1, 0, 1, 0],
        "90+10=001": [2, 1, 0, 2, 1, 0, 1, 2, 3],
        "8": [1],
        "12+": [2, 1, 0],
    }
    for text, right in cases.items():
        said = ask(answer, text)
        said = said.tolist() if hasattr(said, "tolist") else said
        if not isinstance(said, list | tuple) or len(said) != len(text):
            raise Wrong(
                f"For {text!r} expected a list of {len(text)} numbers, one for each character, got {said!r}."
            )
        for i, (got, wanted) in enumerate(zip(said, right, strict=True)):
            if got != wanted:
                raise Wrong(f"For {text!r}, character {i}, {text[i]!r}: {about_column(text, i, got, wanted)}")
    return (
        "Give each of these numbers a learned vector, add it to the embedding, and digits of one column are marked "
        "alike, however long the numbers are, with or without zeros in front."
    )


def about_column(text: str, i: int, got: object, wanted: int) -> str:
    """What to say of a character whose column was told wrongly."""
    if wanted == 0:
        return f"it isn't a digit and has no column, so expected 0, got {got!r}."
    if got == 0:
        return f"expected {wanted}, got {got!r}; units are 1, since 0 is for what isn't a digit."
    if "=" in text[:i]:
        return f"expected {wanted}, got {got!r}; after = the units come first, so count from the left."
    return f"expected {wanted}, got {got!r}; before = count from the right end of each number."
