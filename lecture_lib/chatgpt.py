"""From GPT to ChatGPT.

From notebooks/14_chatgpt.ipynb.
Video 1:48:53.
Written by `lecture promote`: edit the notebook, not this file.
"""

import math
import re
from dataclasses import dataclass

import torch

from lecture_lib.tokenization import CharTokenizer

__all__ = [
    "ANSWER_LENGTH",
    "COUNTS",
    "KINDS",
    "PAIRS",
    "PROMPT_LENGTH",
    "Request",
    "answer_texts",
    "bootstrap_interval",
    "compare",
    "fulfils",
    "quality",
    "request_of",
    "sentences",
    "true_score",
    "words",
]

KINDS = {"?": "Ask", "!": "Cry", ".": "Say"}  # what ends a sentence -> how one asks for it
COUNTS = {3: "three", 4: "four", 5: "five", 6: "six"}
PROMPT_LENGTH, ANSWER_LENGTH = 16, 33  # characters, line ends included


@dataclass(frozen=True)
class Request:
    """What a user may want: a sentence of some kind, of `count` words, the first beginning with `letter`."""

    kind: str
    letter: str
    count: int

    @property
    def prompt(self) -> str:
        """Such as `Ask in four: W` and a line end, after as many line ends as fill PROMPT_LENGTH."""
        return f"{self.kind} in {COUNTS[self.count]}: {self.letter}\n".rjust(PROMPT_LENGTH, "\n")


def sentences(text: str) -> list[str]:
    """The distinct sentences of `text` that answer some request: on one line, three to six words."""
    found = re.findall(r"(?<=[.!?:][ \n])[A-Z][A-Za-z ,;'-]*[.!?](?=[ \n])", text)
    return sorted({s for s in found if len(s) < ANSWER_LENGTH and len(s.split()) in COUNTS})


def request_of(sentence: str) -> Request:
    """The one request that the sentence fulfils."""
    return Request(KINDS[sentence[-1]], sentence[0], len(sentence.split()))


def answer_texts(tokenizer: CharTokenizer, answers: torch.Tensor) -> list[str]:
    """Each row of ids, (N, A), up to its line end; an empty string for an answer that never ended."""
    texts = (tokenizer.decode(row) for row in answers)
    return [text.split("\n")[0] if "\n" in text else "" for text in texts]


def fulfils(request: Request, answer: str) -> bool:
    """Whether the answer is a line of the kind, the first letter and the number of words asked for."""
    return bool(answer) and answer[-1] in KINDS and request_of(answer) == request


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return re.findall(r"[a-z]+(?:'[a-z]+)?", text.lower())


def quality(request: Request, answer: str, known: set[str]) -> dict[str, float]:
    """What a reader minds, each from 0 to 1: the request's three wishes, real words, no repetition."""
    said = words(answer)
    if not said:
        return dict.fromkeys(("kind", "letter", "count", "real", "fresh"), 0.0)
    return {
        "kind": float(KINDS.get(answer[-1]) == request.kind),
        "letter": float(answer[0] == request.letter),
        "count": max(0.0, 1 - abs(len(answer.split()) - request.count) / 3),
        "real": (sum(word in known for word in said) / len(said)) ** 2,
        "fresh": len(set(said)) / len(said),
    }


def true_score(request: Request, answer: str, known: set[str]) -> float:
    """The product of the qualities: nothing makes up for what is missing altogether."""
    return math.prod(quality(request, answer, known).values())


PAIRS = torch.combinations(torch.arange(4))  # (6, 2): all pairs of the four answers to a prompt


def compare(scores: torch.Tensor, sharpness: float) -> torch.Tensor:
    """A noisy reader's verdict on every pair of a prompt's answers, (N, 4) -> (N, 6, 2): better, worse.

    Bradley and Terry 1952: P(first preferred) = sigmoid(sharpness * (first - second)).
    """
    first, second = scores[:, PAIRS].unbind(-1)  # (N, 6), (N, 6)
    prefers_first = torch.rand_like(first) < torch.sigmoid(sharpness * (first - second))
    return torch.where(prefers_first[..., None], PAIRS, PAIRS.flip(1))  # (N, 6, 1), (6, 2) -> (N, 6, 2)


def bootstrap_interval(values: torch.Tensor, draws: int = 4000) -> tuple[float, float]:
    """The 95% interval of the mean of `values`, (N,), the bootstrap's percentiles (Efron 1979).

    Has a generator of its own, so that the same values give the same interval.
    """
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(len(values), (draws, len(values)), generator=generator)  # (draws, N)
    low, high = values[rows].mean(dim=1).quantile(torch.tensor([0.025, 0.975])).tolist()
    return low, high
