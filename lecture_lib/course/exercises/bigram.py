"""Checks of the exercises of 03_bigram."""

from collections.abc import Callable
from unittest.mock import patch

import torch
from torch.nn import functional as F

from lecture_lib.tokenization import load_splits

from .asking import Wrong, ask, expect
from .checking import exercise
from .watching import refuse_loop, watched


@exercise("03.1", Callable, "a function of logits (B, T, C) and targets (B, T) that gives the mean surprise")
def loss_without_loops(answer: Callable) -> str:
    for B, T, C in ((4, 8, 65), (2, 3, 5), (1, 4, 4)):
        logits, targets = 2 * torch.randn(B, T, C), torch.randint(C, (B, T))
        surprise = -of_targets(logits.log_softmax(dim=-1), targets)
        expect(
            ask(answer, logits, targets),
            surprise.mean().item(),
            f"For random logits of shape ({B}, {T}, {C})",
            {
                "You have the sum of all surprises; the loss is their mean.": surprise.sum().item(),
                "Your loss has the wrong sign: a logarithm of a probability is negative, a surprise is not.": (
                    -surprise.mean().item()
                ),
                "The softmax runs over time; the scores of one position stand in the last dimension.": (
                    -of_targets(logits.log_softmax(dim=1), targets).mean().item()
                ),
                "These are raw scores; log_softmax makes logarithms of probabilities of them.": (
                    -of_targets(logits, targets).mean().item()
                ),
                "You average the probabilities first; each position's logarithm comes before the mean.": (
                    -(-surprise).exp().mean().log().item()
                ),
            },
            atol=1e-4,
        )
    ready_made = Wrong("The number is right, but F.cross_entropy makes it; make it yourself, of log_softmax.")
    with patch.object(F, "cross_entropy", side_effect=ready_made):
        short, long = (watched(answer, torch.randn(2, T, 5), torch.randint(5, (2, T))) for T in (3, 12))
    refuse_loop(short, long, "more positions take")
    return "This is all that F.cross_entropy does: pick one logarithm at each position, and average."


def of_targets(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The score of each position's target: (B, T, C), (B, T) -> (B, T)."""
    return scores.gather(-1, targets[..., None])[..., 0]


@exercise("03.2", Callable, "a function of logits (B, C) and a temperature that gives probabilities (B, C)")
def temperature(answer: Callable) -> str:
    for B, C, heat in ((2, 5, 0.5), (3, 4, 2.0), (1, 65, 1.0), (2, 3, 0.01)):
        logits = torch.randn(B, C)
        cooled = logits.softmax(dim=-1) / heat
        expect(
            ask(answer, logits, heat),
            (logits / heat).softmax(dim=-1),
            f"For random logits of shape ({B}, {C}) and temperature {heat}",
            {
                "You multiply by the temperature; a low one has to make the differences larger.": (
                    (logits * heat).softmax(dim=-1)
                ),
                "You divide the probabilities, so they no longer sum to 1; divide the logits.": cooled,
                "The columns sum to 1, not the rows: the softmax runs over the last dimension.": (
                    (logits / heat).softmax(dim=0)
                ),
                "The temperature makes no difference yet.": logits.softmax(dim=-1),
                "These are the scores still; softmax turns them into probabilities.": logits / heat,
            },
        )
    return "Near 0 the likeliest character takes all, at 1 nothing changes, and far above 1 all are equally likely."


@exercise("03.3", Callable, "a function of known ids, ids and vocab_size that gives the loss on ids")
def trigram(answer: Callable) -> str:
    for C, known_length, length in ((3, 40, 30), (5, 60, 25), (7, 30, 50)):
        known, ids = torch.randint(C, (known_length,)), torch.randint(C, (length,))
        counts = triple_counts(known, C)
        surprise = surprises(counts + 1, ids)
        pairs = counts.sum(dim=0, keepdim=True).expand(C, C, C)
        expect(
            ask(answer, known, ids, C),
            surprise.mean().item(),
            f"For {known_length} known ids, {length} others and vocab_size {C}",
            {
                "You counted on the text that you measure; count on `known` only.": (
                    surprises(triple_counts(ids, C) + 1, ids).mean().item()
                ),
                "You have the sum of all surprises; the loss is their mean.": surprise.sum().item(),
                "Each count is divided by the sum of all counts; divide by the sum of its own context.": (
                    -((counts + 1) / (counts + 1).sum())[ids[:-2], ids[1:-1], ids[2:]].log().mean().item()
                ),
                "Your context is one character, the last; a trigram's is the last two.": (
                    surprises(pairs + 1, ids).mean().item()
                ),
                "Your two characters of context are in the opposite order.": (
                    surprises(counts.transpose(0, 1) + 1, ids).mean().item()
                ),
            },
            atol=1e-4,
        )
    _, splits = load_splits()
    counts = triple_counts(splits["train"], 65) + 1
    losses = {split: surprises(counts, ids).mean().item() for split, ids in splits.items()}
    return (
        f"On Shakespeare it gives {losses['train']:.4f} for train and {losses['val']:.4f} for val: the second character "
        "is worth a lot. With eight characters the table would have 65^9 entries, nearly all of them empty."
    )


def triple_counts(ids: torch.Tensor, C: int) -> torch.Tensor:
    """How often each two characters are followed by each third: (N,) -> (C, C, C)."""
    triples = (ids[:-2] * C + ids[1:-1]) * C + ids[2:]  # (N - 2,)
    return triples.bincount(minlength=C**3).view(C, C, C)


def surprises(counts: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Surprise of each id from the third on, by counts (C, C, C): (N,) -> (N - 2,)."""
    return -F.normalize(counts.float(), p=1, dim=-1)[ids[:-2], ids[1:-1], ids[2:]].log()
