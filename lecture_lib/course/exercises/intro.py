"""Checks of the exercises of 00_intro."""

import math
from collections import Counter
from collections.abc import Callable

from lecture_lib.base.corpus import load_corpus

from .asking import Wrong, ask, expect
from .checking import exercise

TEXTS = ("the thin thaw, the moth and the th", "aaaab aab aaa", "to be or not to be, that is the best bet")


@exercise("00.1", Callable, "a function of a text, a context and a character that gives a share")
def share_of_follower(answer: Callable) -> str:
    cases = [(TEXTS[0], "th", "e"), (TEXTS[1], "aa", "a"), (TEXTS[2], "b", "e"), (TEXTS[2], "t", "h")]
    for text, context, character in cases:
        counts = followed(text, context)
        right, places = counts[character], counts.total()
        slid = sum(text.startswith(context, i) for i in range(len(text)))
        expect(
            ask(answer, text, context, character),
            right / places,
            f"How often {context!r} is followed by {character!r} in {text!r}",
            {
                "This is how often it happens; divide by how many places have this context.": right,
                "You divide by the length of the text; only the places with this context count.": right
                / len(text),
                "str.count passes over places that overlap: in 'aaa', 'aa' occurs twice.": (
                    text.count(context + character) / text.count(context)
                ),
                "A context at the very end of the text has nothing after it, so it doesn't count.": right
                / slid,
                "This is the share of all other characters, not of this one.": 1 - right / places,
            },
        )
    text = load_corpus()
    capital, small = followed(text, "Q"), followed(text, "q")
    return (
        f"In Shakespeare, 'q' is followed by 'u' {small['u'] / small.total():.0%} of the time. 'Q' is followed by 'U' "
        f"{capital['U'] / capital.total():.0%} of the time, by 'u' {capital['u'] / capital.total():.0%}: "
        "it stands in the speakers' names, all in capitals, and at the beginning of words."
    )


def followed(text: str, context: str) -> Counter:
    """How often each character follows `context` in the text."""
    width = len(context)
    return Counter(text[i + width] for i in range(len(text) - width) if text.startswith(context, i))


@exercise("00.2", Callable, "a function of a list of probabilities that gives the perplexity")
def perplexity(answer: Callable) -> str:
    for probs in ([0.5, 0.25, 0.1], [1 / 65] * 4 + [0.9], [1.0, 0.2]):
        surprises = [-math.log(p) for p in probs]
        total, mean = sum(surprises), sum(surprises) / len(probs)
        expect(
            ask(answer, probs),
            math.exp(mean),
            f"The perplexity for the probabilities {[round(p, 3) for p in probs]}",
            {
                "This is the loss, in nats; the perplexity is e to that power.": mean,
                "You take e to the sum of the surprises; the loss is their mean.": math.exp(total),
                "The sign is wrong: a surprise is minus the logarithm, so the perplexity is at least 1.": (
                    math.exp(-mean)
                ),
                "You average 1/p itself; the mean is over surprises, the logarithms of 1/p.": (
                    sum(1 / p for p in probs) / len(probs)
                ),
                "You average the probabilities; each one's surprise comes before the mean.": len(probs)
                / sum(probs),
                "One logarithm is to base 2 and the power to base e; take one base for both.": (
                    math.exp(mean / math.log(2))
                ),
            },
        )
    return "One very unlikely character costs a lot: a model does well to keep a little probability for everything."


@exercise("00.3", Callable, "a function of a text and a context that gives the guessed character")
def back_off(answer: Callable) -> str:
    for text in TEXTS:
        for context in ("thz", "the", "xth", "qqa", "zz", "at t", "ot to b", "xaa"):
            said = ask(answer, text, context)
            parts = [context[start:] for start in range(len(context) + 1)]
            best = likeliest(text, next(part for part in parts if followed(text, part)))
            if said in best:
                continue
            what = (
                f"For {context!r} in {text!r}, expected {' or '.join(map(repr, sorted(best)))}, got {said!r}."
            )
            if said is None:
                raise Wrong(
                    f"{what} When no longer part occurs, the empty context is left: it occurs everywhere."
                )
            if not isinstance(said, str) or len(said) != 1:
                raise Wrong(f"{what} A guess is one character.")
            if said in likeliest(text, ""):
                raise Wrong(f"{what} Yours is the most frequent of all; try the longest context first.")
            if any(said in likeliest(text, context[:end]) for end in range(1, len(context))):
                raise Wrong(f"{what} Yours follows the beginning of the context; shorten it from the front.")
            raise Wrong(f"{what} Take the most frequent successor of the longest part that was met.")
    return (
        "Where a long context is new, a shorter one decides. On section 4's question that is right at 53.7% of the "
        "positions with five characters and still at 52.6% with nine. "
        "Chapter 16 makes a model of this idea."
    )


def likeliest(text: str, context: str) -> set[str]:
    """The most frequent successors of a context, more than one if they tie; none if it has no successor."""
    counts = followed(text, context)
    return {character for character, count in counts.items() if count == max(counts.values())}
