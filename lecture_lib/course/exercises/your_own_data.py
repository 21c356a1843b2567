"""Checks of the exercises of 17_your_own_data."""

import math
from collections.abc import Callable

from .asking import Wrong, ask, expect, number, several
from .checking import exercise


@exercise(
    "17.1", Callable, "a function of nats_per_token, tokens and characters that gives bits per character"
)
def one_unit(answer: Callable) -> str:
    for nats, tokens, characters in ((3.0, 1000, 2500), (1.5, 400, 400), (4.2, 10, 37)):
        expected = nats * tokens / characters / math.log(2)
        slips = {
            "That's in nats: a bit is ln 2 nats, so there are more bits than nats.": (
                nats * tokens / characters
            ),
            "A bit is ln 2 nats: divide by ln 2, so that there are more bits than nats.": (
                nats * tokens / characters * math.log(2)
            ),
            "That's bits per token: the whole text's bits are shared among its characters.": (
                nats / math.log(2)
            ),
            "You take characters for each token upside down: a text of many characters per token has a lower "
            "loss for each of them.": nats * characters / tokens / math.log(2),
        }
        slips = {sentence: wrong for sentence, wrong in slips.items() if abs(wrong - expected) > 1e-6}
        what = f"For {nats} nats per token, {tokens} tokens, {characters} characters"
        expect(ask(answer, nats, tokens, characters), expected, what, slips)
    return (
        "The loss of the whole text doesn't depend on how it was cut into tokens. Shared among its characters, it "
        "can be compared with any other model of the same text."
    )


@exercise("17.2", Callable, "a function of a list of lines and a seed that gives two lists")
def list_split(answer: Callable) -> str:
    lines = [f"name {i * 7 % 41}" for i in range(100)]  # 41 different ones
    form = "Expected two lists, for training and for validation."
    train, val = (list(part) for part in several(ask(answer, lines, 1), 2, form))
    both = set(train) & set(val)
    if both:
        raise Wrong(
            f"{len(both)} lines are on both sides of the cut, {min(both)!r} for instance: that is the leak."
        )
    if len(set(train)) < len(train) or len(set(val)) < len(val):
        raise Wrong("A line occurs more than once on one side; each different line belongs there once.")
    if set(train) | set(val) != set(lines):
        missing = set(lines) - set(train) - set(val)
        raise Wrong(f"{len(missing)} of the lines are on neither side, or there are lines of your own.")
    if len(train) != 36:
        raise Wrong(f"Of 41 different lines, int(0.9 * 41) = 36 belong to training; yours has {len(train)}.")
    if [*train, *val] in (list(dict.fromkeys(lines)), sorted(set(lines))):
        raise Wrong(
            "The lines are in their old order, or sorted: the end of a list differs from its beginning."
        )
    if ask(answer, lines, 1) != ask(answer, lines, 1):
        raise Wrong("The same seed gives another split the second time; draw the order from `seed` alone.")
    if ask(answer, lines, 1) == ask(answer, lines, 2):
        raise Wrong("Seeds 1 and 2 give the same split; draw the order from `seed`.")
    return (
        "Each line is on one side, drawn from the same pot. In a program, where half of the lines are copies, "
        "shuffling without this would have shown most of the validation split to the model."
    )


def patient(losses: list[float], patience: int) -> tuple[int, int]:
    """Place of the lowest loss seen, and how many are seen."""
    lowest = 0
    for place, loss in enumerate(losses):
        lowest = place if loss < losses[lowest] else lowest
        if place - lowest == patience:
            return lowest, place + 1
    return lowest, len(losses)


@exercise("17.3", Callable, "a function of losses and patience that gives two numbers")
def early_stop(answer: Callable) -> str:
    for losses, patience in (
        ([4.0, 3.0, 2.0, 2.5, 2.4, 2.6, 1.0, 0.9], 3),
        ([4.0, 3.0, 2.0, 2.5, 2.4, 1.9, 1.8], 3),
        ([3.0, 3.5, 2.9, 3.1, 2.9, 3.0, 2.0], 2),
        ([5.0, 4.0, 3.0], 1),
    ):
        place, seen = patient(losses, patience)
        given = several(ask(answer, losses, patience), 2, "Expected two numbers: a place, and losses seen.")
        what = f"For losses {losses} and patience {patience}"
        expect(
            given[0],
            place,
            f"{what}, the place of the lowest",
            {
                "That's the lowest of all losses; the run has stopped before it saw the later ones.": (
                    losses.index(min(losses))
                )
                if losses.index(min(losses)) >= seen
                else math.inf,
                "That's the loss itself, not its place.": losses[place]
                if losses[place] != place
                else math.inf,
                "That's the last place that the run saw; the best weights are earlier.": (
                    seen - 1 if seen - 1 != place else math.inf
                ),
            },
        )
        expect(
            given[1],
            seen,
            f"{what}, the losses seen",
            {
                "Counting begins at 0 for places, but how many losses were seen begins at 1.": seen - 1,
                "The run goes on too long: it ends with the loss that uses up the patience.": seen + 1,
                "The run doesn't stop, or sees losses that come after it has.": (
                    len(losses) if seen < len(losses) else math.inf
                ),
            },
        )
    return (
        "A longer patience survives a bad estimate, and wastes more steps when the loss really rises. The best "
        "weights are kept either way."
    )


@exercise("17.4", Callable, "a function of sizes, characters, seconds and speed that gives one of the sizes")
def size_for_a_budget(answer: Callable) -> str:
    family = [800_000, 30_000, 10_700_000, 200_000, 4_800_000]
    for characters, seconds, speed in (
        (10**9, 1, 3e8),
        (1_000_000, 600, 5e10),
        (10**9, 60, 2e10),
        (250_000, 10**6, 1e11),
        (10**9, 10**6, 1e12),
        (5_000, 600, 1e10),
    ):
        read = [n for n in family if 60 * n**2 <= seconds * speed]
        suits = [n for n in read if n <= characters]
        expected = max(suits, default=min(family))
        slips = {
            "Reading costs 6 operations for each token and *parameter*: 10 n tokens cost 60 n squared.": max(
                (n for n in family if 60 * n <= seconds * speed and n <= characters), default=0
            ),
            "That size has more parameters than the text has characters.": max(read, default=0),
            "That size can't read 10 tokens for each parameter in the time.": max(
                (n for n in family if n <= characters), default=0
            ),
            "The smallest size is only for a text or a time that none suits.": min(family),
        }
        slips = {sentence: wrong for sentence, wrong in slips.items() if wrong != expected}
        what = f"For {characters:,} characters and {seconds:,} s at {speed:.0e} operations a second"
        given = number(ask(answer, family, characters, seconds, speed), what)
        expect(given, expected, what, slips)
    return (
        "A model ten times as large costs ten times as much for each token and wants ten times as many: a hundred "
        "times as long. That's why the size follows the square root of the time."
    )
