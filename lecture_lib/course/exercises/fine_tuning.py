"""Checks of the exercises of 14_fine_tuning."""

import random
from collections.abc import Callable
from itertools import product

import torch

from lecture_lib.fine_tuning import answer_mask
from lecture_lib.requests import Request

from .asking import Wrong, ask, expect, several
from .checking import exercise


@exercise("14.1", Callable, "a function of part, requests and fulfilled that gives a dictionary of shares")
def failing_requests(answer: Callable) -> str:
    every = [Request(*parts) for parts in product(("Ask", "Cry", "Say"), "HOW", (3, 4, 5, 6))]
    requests = random.choices(every, k=80)
    fulfilled = [request.count < 5 or random.random() < 0.3 for request in requests]
    for part in ("kind", "letter", "count"):
        shares = ask(answer, part, requests, fulfilled)
        groups: dict[object, list[bool]] = {}
        for request, passed in zip(requests, fulfilled, strict=True):
            groups.setdefault(getattr(request, part), []).append(passed)
        if not isinstance(shares, dict) or set(shares) != set(groups):
            raise Wrong(f"For part={part!r}, expected a dictionary with the keys {sorted(groups)}.")
        for value, group in groups.items():
            right = sum(group)
            expect(
                shares[value],
                right / len(group),
                f"For part={part!r}, the share of {value!r}",
                {
                    "You have the counts; divide each by how many requests its group has.": right,
                    "You divide by all requests; divide by those of the group.": right / len(requests),
                    "These are the shares that failed.": 1 - right / len(group),
                    "You divide by all that are fulfilled; how many requests has the group?": (
                        right / sum(fulfilled)
                    ),
                },
            )
    return (
        "Here the letters and kinds are about equal, and the long sentences fail: it's counting that is hard."
    )


@exercise("14.2", Callable, "a function from (B, P) prompts and (B, A) answers to (B, P + A - 1) targets")
def prompts_learned(answer: Callable) -> str:
    prompts = torch.tensor([[0, 0, 5, 6, 7, 0], [0, 8, 9, 5, 6, 0], [4, 5, 4, 6, 9, 0]])
    answers = torch.tensor([[3, 4, 0, 0, 0], [3, 0, 0, 0, 0], [1, 2, 3, 4, 5]])
    for rows in (slice(0, 1), slice(0, 3), slice(1, 3)):
        some, said = prompts[rows], answers[rows]
        tokens = torch.cat([some, said], dim=1)
        begun, ended = (some != 0).cumsum(dim=1) > 0, answer_mask(said)
        targets = lambda *counted: tokens.masked_fill(~torch.cat(counted, dim=1), -100)  # noqa: B023, E731
        everything, nothing = torch.ones_like(begun), torch.zeros_like(begun)
        right = targets(begun, ended)
        expect(
            ask(answer, some, said),
            right[:, 1:],
            f"For prompts {some.tolist()} and answers {said.tolist()}",
            {
                "Your targets aren't shifted: the target at a position is the token after it.": right[:, :-1],
                "The line ends that pad the prompts on the left count in yours.": (
                    targets(everything, ended)[:, 1:]
                ),
                "The line end at the end of a prompt isn't padding; it has to count.": (
                    targets(some != 0, ended)[:, 1:]
                ),
                "The prompts still count for nothing.": targets(nothing, ended)[:, 1:],
                "The line ends that pad the answers on the right count in yours.": (
                    targets(begun, torch.ones_like(ended))[:, 1:]
                ),
                "The line end that closes an answer has to count: the model must learn to stop.": (
                    targets(begun, said != 0)[:, 1:]
                ),
            },
        )
    return "Whoever trains on the prompts as well spends part of the model on writing requests, and those come from the user."


@exercise(
    "14.3", Callable, "a function from a dictionary of runs to the set of the names that no other beats"
)
def fair_choices(answer: Callable) -> str:
    examples = (
        {
            "a": (1.6, 0.1),
            "b": (1.7, 0.3),
            "c": (2.0, 0.2),
            "d": (2.4, 0.5),
            "e": (2.4, 0.4),
            "f": (1.7, 0.2),
        },
        {"none": (2.4, 0.50), "two": (2.0, 0.50), "six": (1.7, 0.30), "twelve": (1.7, 0.20)},
        {"worst": (3.0, 0.0), "best": (1.5, 0.9), "middle": (2.0, 0.4)},
        {"twin": (1.7, 0.3), "other twin": (1.7, 0.3), "behind": (1.8, 0.3)},
    )
    for runs in examples:
        said = ask(answer, runs)
        if not isinstance(said, set | frozenset | list | tuple):
            raise Wrong(f"Expected a set of names, got a {type(said).__name__}.")
        expected = left_by(
            lambda one, other: one != other and one[0] <= other[0] and one[1] >= other[1], runs
        )
        if set(said) == expected:
            continue
        slips = {
            "You keep a run that is as good as another in one number and worse in the other; it is beaten.": (
                left_by(lambda one, other: one[0] < other[0] and one[1] > other[1], runs)
            ),
            "Two equal runs don't beat each other: neither is better in anything.": (
                left_by(lambda one, other: one[0] <= other[0] and one[1] >= other[1], runs, alike=False)
            ),
            "You take a high loss on Shakespeare for a good one; lower is better.": (
                left_by(lambda one, other: one != other and one[0] >= other[0] and one[1] >= other[1], runs)
            ),
            "These are the runs that are beaten; expected the others.": set(runs) - expected,
            "You beat a run as soon as another is better in one number; it may be worse in the other.": (
                left_by(lambda one, other: one[0] < other[0] or one[1] > other[1], runs)
            ),
        }
        for sentence, wrong in slips.items():
            if set(said) == wrong:
                raise Wrong(sentence)
        raise Wrong(f"For {runs}, expected {sorted(expected)}, got {sorted(map(str, said))}.")
    return "Such runs are called Pareto-optimal. Which of them to take is a question of taste, not of measurement."


def left_by(beats: Callable, runs: dict[str, tuple[float, float]], alike: bool = True) -> set[str]:
    """The names of the runs that no other beats; of equal runs none is left unless `alike` ones may stay."""
    return {
        name
        for name, run in runs.items()
        if not any(beats(other, run) for key, other in runs.items() if (alike or key != name))
    }


@exercise("14.4", Callable, "a function from (N, each) scores to the quotient of two standard errors")
def narrow_interval(answer: Callable) -> str:
    for N, each, common in ((40, 12, 1.0), (25, 4, 0.5), (60, 8, 0.0)):
        scores = common * torch.randn(N, 1) + torch.randn(N, each)
        means = scores.mean(dim=1)
        quotient = (means.std() / scores.std()).item()
        expected = quotient * each**0.5
        expect(
            ask(answer, scores),
            expected,
            f"For random scores of shape ({N}, {each})",
            {
                "Yours is upside down: the standard error by requests comes first.": 1 / expected,
                "These are variances; a standard error is a square root.": expected**2,
                "You have the standard deviations; each still has to be divided by the root of its n.": quotient,
                "Each standard deviation is divided by n; divide it by the root of n.": quotient * each,
                "Your standard deviations divide by n; those of a sample divide by n - 1, as `std()` does.": (
                    expected * ((1 - 1 / N) / (1 - 1 / (N * each))) ** 0.5
                ),
                "A request is a row: its mean runs over dim=1.": (
                    (scores.mean(dim=0).std() / scores.std()).item() * N**0.5
                ),
            },
            atol=1e-4,
        )
    return (
        "If the answers to a request resemble each other, the interval that takes them for independent is too "
        "narrow by this factor. If they don't, the factor is about 1, and drawing whole requests costs nothing."
    )


@exercise("14.5", Callable, "a function from lessons to idx (T,), targets (T,), positions (T,), mask (T, T)")
def packed_lessons(answer: Callable) -> str:
    two = [([5, 6], [7, 0]), ([8], [9, 9, 0])]
    four = [([1, 2, 3], [4, 5, 0]), ([6], [0]), ([7, 8], [9, 1, 2, 3, 0]), ([4, 5], [6, 0])]
    for example in (two, four, four[1:3], two[:1]):
        lessons = tuple((torch.tensor(prompt), torch.tensor(said)) for prompt, said in example)
        parts = ask(answer, lessons)
        several(parts, 4, "Expected four tensors: idx, targets, positions and mask.")
        packed_as_expected(parts, lessons, f"for the lessons {example}")
    return (
        "No lesson notices the others: not by attention, not by positions, not by targets. That each of them "
        "is kept apart is what the loss curve of a packed run won't tell you."
    )


def packed_as_expected(parts: list[torch.Tensor], lessons: tuple[tuple, ...], where: str) -> None:
    """Wrong unless `parts` are what `pack` should make of these lessons."""
    idx, targets, positions, mask = parts
    whole = [torch.cat(lesson) for lesson in lessons]
    inputs = torch.cat([tokens[:-1] for tokens in whole])
    if isinstance(idx, torch.Tensor) and torch.equal(idx, torch.cat(whole)):
        raise Wrong("The last token of each lesson predicts nothing; leave it out of idx.")
    if isinstance(idx, torch.Tensor) and len(lessons) > 1 and torch.equal(idx, torch.cat(whole)[:-1]):
        raise Wrong("You drop the last token of the row; the last one of each lesson has to go.")
    expect(idx, inputs, f"idx {where}")
    padded = [(torch.full_like(prompt, -100), said) for prompt, said in lessons]
    expect(
        targets,
        torch.cat([torch.cat(pair)[1:] for pair in padded]),
        f"targets {where}",
        {
            "Your targets aren't shifted: the target at a position is the token after it.": (
                torch.cat([torch.cat(pair)[:-1] for pair in padded])
            ),
            "The prompts' tokens count in your targets; only the answers' should.": (
                torch.cat([tokens[1:] for tokens in whole])
            ),
            "A lesson's first answer token is missing from your targets: the prompt's last position predicts it.": (
                torch.cat([torch.cat([torch.full_like(p, -100), a[1:]]) for p, a in lessons])
            ),
        },
    )
    owner = torch.repeat_interleave(torch.tensor([len(tokens) - 1 for tokens in whole]))
    past = torch.ones(len(owner), len(owner), dtype=torch.bool).tril()
    expect(
        positions,
        torch.cat([torch.arange(len(tokens) - 1) for tokens in whole]),
        f"positions {where}",
        {
            "Your positions run on through the row; each lesson begins at 0 again.": torch.arange(len(owner)),
            "Your positions begin at 1; the first is 0.": (
                torch.cat([torch.arange(1, len(tokens)) for tokens in whole])
            ),
        },
    )
    same_lesson = owner[:, None] == owner
    if isinstance(mask, torch.Tensor) and mask.dtype != torch.bool:
        raise Wrong(
            f"Expected a mask of dtype torch.bool, got {mask.dtype}; numbers would be added to the scores."
        )
    expect(
        mask,
        same_lesson & past,
        f"mask {where}",
        {
            "Your mask lets a lesson attend to the lessons before it.": past,
            "Your mask lets a position attend to the future of its lesson.": same_lesson,
            "Your mask is transposed: row t says what position t may attend to.": (same_lesson & past).T,
            "Your mask is True where nothing may be attended to; it should be the other way round.": (
                ~(same_lesson & past)
            ),
        },
    )
