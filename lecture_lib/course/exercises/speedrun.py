"""Checks of the exercises of 16c_speedrun."""

import math
from collections.abc import Callable

import torch

from lecture_lib.counts import context_ids

from .asking import Wrong, ask, expect
from .checking import exercise


@exercise("16c.1", Callable, "a function of steps, seconds and other_seconds that gives a number of steps")
def equal_time(answer: Callable) -> str:
    for steps, seconds, other in ((1400, 0.3, 0.25), (60, 0.5, 0.8), (100, 0.1, 0.3)):
        expected = math.floor(steps * seconds / other + 1e-9)
        slips = {
            "That's the ratio upside down: a slower step leaves time for fewer steps.": (
                math.floor(steps * other / seconds + 1e-9)
            ),
            "Equal steps aren't equal time: the variant's step takes another time.": steps,
        }
        if steps * seconds / other % 1 > 0.01:
            slips["The last step ends after the clock has stopped: round down."] = expected + 1
            slips["A part of a step can't be taken: round down to whole steps."] = steps * seconds / other
        what = f"For {steps:,} steps of {seconds} s against steps of {other} s"
        expect(ask(answer, steps, seconds, other), expected, what, slips, atol=1e-6)
    return (
        "An ingredient that helps in each step but makes steps slow may lose at equal time. Only this comparison "
        "tells whether it is worth having."
    )


@exercise(
    "16c.2", Callable, "a function of logits (V,), log_probs (V,) and trust that gives log-probabilities (V,)"
)
def trusting(answer: Callable) -> str:
    logits, log_probs = torch.randn(6), torch.randn(6).log_softmax(-1)
    for trust in (0.5, 0.0, 1.0):
        summed = logits + trust * log_probs
        blend = (trust * log_probs.exp() + (1 - trust) * logits.softmax(-1)).log()
        slips = {
            "These don't sum to 1: a softmax is missing after the sum.": summed,
            "These are probabilities; the function gives their logarithms.": summed.softmax(-1),
            "You blend probabilities, trust of one and the rest of the other. Here scores are added.": blend,
            "trust belongs to the counts' log-probabilities, not to the network's logits.": (
                (trust * logits + log_probs).log_softmax(-1)
            ),
            "trust makes no difference in your result.": (logits + log_probs).log_softmax(-1),
        }
        if trust == 1.0:
            slips = dict(list(slips.items())[:2])
        expect(ask(answer, logits, log_probs, trust), summed.log_softmax(-1), f"For trust {trust}", slips)
    zeros = ask(answer, torch.zeros(6), log_probs, 1.0)
    expect(zeros, log_probs, "With logits of 0 and trust 1, the counts' own log-probabilities")
    return (
        "With zeros at the start and a trust of 1 the model is exactly as good as its counts. From there the "
        "network multiplies each probability by a factor, and trust sharpens or flattens what the counts say."
    )


@exercise("16c.3", Callable, "a function of ids (N,), n, vocab_size and rows that gives a number of n-grams")
def collisions(answer: Callable) -> str:
    for N, n, V, rows in ((400, 2, 9, 31), (3000, 3, 10, 97), (50, 2, 5, 1000)):
        text = torch.randint(V, (N,))
        each = context_ids(text[None], n, V)[0, n - 1 :]
        different = each.unique()
        row = different % rows
        crowd = torch.bincount(row, minlength=rows)
        expect(
            ask(answer, text, n, V, rows),
            int((crowd[row] > 1).sum()),
            f"For {N} random ids of {V}, n={n}, rows={rows}",
            {
                "You count places in the text; count each different n-gram once.": (
                    int((torch.bincount(each % rows, minlength=rows)[each % rows] > 1).sum())
                ),
                "You count the rows that are shared; count the n-grams in them.": int((crowd > 1).sum()),
                "You count all different n-grams; some have a row to themselves.": len(different),
                "You count n-grams minus rows in use; the first n-gram of a shared row shares it, too.": (
                    len(different) - int((crowd > 0).sum())
                ),
            },
        )
    return (
        "Of the training split's 133,293 different 5-grams, 87% share one of 65,521 rows, and the vectors help all "
        "the same: most n-grams in a row are rare, and gradients go where the text does."
    )


@exercise(
    "16c.4", Callable, "a function of n-gram numbers (N,), int64, and rows that gives (N, 2) row numbers"
)
def two_rows(answer: Callable) -> str:
    ids, rows = torch.randint(65**5, (50_000,)).unique(), 1009
    places = ask(answer, ids, rows)
    if not isinstance(places, torch.Tensor) or tuple(places.shape) != (len(ids), 2):
        got = tuple(places.shape) if isinstance(places, torch.Tensor) else type(places).__name__
        raise Wrong(f"For {len(ids):,} n-grams expected a tensor of shape ({len(ids)}, 2), got {got}.")
    if places.is_floating_point() or places.min() < 0 or places.max() >= rows:
        raise Wrong(
            f"Row numbers are integers from 0 to {rows - 1}; yours run from {places.min()} to {places.max()}."
        )
    order = torch.randperm(len(ids))[:10_000]
    if not torch.equal(places[order], ask(answer, ids[order], rows)):
        raise Wrong(
            "The same n-grams, asked for again in another order, get other rows; each row has to be a function of "
            "the n-gram's number alone."
        )
    for which in (0, 1):
        used = len(places[:, which].unique())
        if used < 0.98 * rows:
            raise Wrong(f"Column {which} uses only {used} of the {rows} rows.")
    alone = torch.bincount(places[:, 0] * rows + places[:, 1])
    sharing = int(alone[alone > 1].sum())
    if sharing > 0.5 * len(ids):
        raise Wrong(
            f"{sharing:,} of {len(ids):,} n-grams share both rows with another one: whoever shares your first row "
            "shares the second, too. The second has to depend on what the first forgets."
        )
    if sharing > 0.07 * len(ids):  # by chance 4.8% share both, with 1009 * 1009 pairs of rows
        raise Wrong(
            f"{sharing:,} of {len(ids):,} n-grams share both rows; two independent ones leave about 5%."
        )
    return (
        "With 1,009 rows each n-gram shares its first row with about 50 others, and both rows with hardly any: the sum "
        "of two shared vectors is nearly its own. Small tables can serve very many n-grams."
    )
