"""Requests with answers that can be checked.

From notebooks/14_fine_tuning.ipynb, section "7. What a reader cares about".
Video 1:48:53.
Written by `lecture promote`: edit the notebook, not this file.

Efron 1979: https://doi.org/10.1214/aos/1176344552
"""

import math
import random
import re
from collections import Counter
from dataclasses import dataclass
from itertools import product

import torch

from lecture_lib.tokenization import CharTokenizer

__all__ = [
    "ANSWER_LENGTH",
    "COUNT_WORDS",
    "PROMPT_LENGTH",
    "SENTENCE_KINDS",
    "Request",
    "Task",
    "answer_quality",
    "answer_sentences",
    "answer_texts",
    "bootstrap_interval",
    "fulfils",
    "repeated_requests",
    "request_of",
    "true_score",
    "words_in",
]

SENTENCE_KINDS = {"?": "Ask", "!": "Cry", ".": "Say"}  # a sentence's last character -> how to ask for one
COUNT_WORDS = {3: "three", 4: "four", 5: "five", 6: "six"}
PROMPT_LENGTH, ANSWER_LENGTH = 16, 33  # characters, line ends included


@dataclass(frozen=True)
class Request:
    """What a user asks for: a sentence of a kind, of `count` words, the first beginning with `letter`."""

    kind: str
    letter: str
    count: int

    @property
    def prompt(self) -> str:
        """Such as `Ask in four: W` and a line end, padded on the left with line ends to PROMPT_LENGTH."""
        return f"{self.kind} in {COUNT_WORDS[self.count]}: {self.letter}\n".rjust(PROMPT_LENGTH, "\n")


def answer_sentences(text: str) -> list[str]:
    """The distinct sentences of `text` that fulfil some request: on one line, three to six words."""
    # after the end of a sentence or a speaker's name, and without a line end inside
    found = re.findall(r"(?<=[.!?:][ \n])[A-Z][A-Za-z ,;'-]*[.!?](?=[ \n])", text)
    return sorted({s for s in found if len(s) < ANSWER_LENGTH and len(s.split()) in COUNT_WORDS})


def request_of(sentence: str) -> Request:
    """The one request that the sentence fulfils."""
    return Request(SENTENCE_KINDS[sentence[-1]], sentence[0], len(sentence.split()))


def answer_texts(tokenizer: CharTokenizer, answers: torch.Tensor) -> list[str]:
    """Each row of ids, (N, A), up to its line end; an empty string for an answer that never ended."""
    texts = (tokenizer.decode(row) for row in answers)
    return [text.split("\n")[0] if "\n" in text else "" for text in texts]


def fulfils(request: Request, answer: str) -> bool:
    """Whether the answer has the kind, the first letter and the number of words asked for."""
    return bool(answer) and answer[-1] in SENTENCE_KINDS and request_of(answer) == request


def words_in(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return re.findall(r"[a-z]+(?:'[a-z]+)?", text.lower())


def answer_quality(request: Request, answer: str, known: set[str]) -> dict[str, float]:
    """Five qualities, each from 0 to 1: kind, letter and count as requested, real words, no repetition."""
    said = words_in(answer)
    if not said:
        return dict.fromkeys(("kind", "letter", "count", "real", "fresh"), 0.0)
    return {
        "kind": float(SENTENCE_KINDS.get(answer[-1]) == request.kind),
        "letter": float(answer[0] == request.letter),
        "count": max(0.0, 1 - abs(len(answer.split()) - request.count) / 3),
        "real": (sum(word in known for word in said) / len(said)) ** 2,
        "fresh": len(set(said)) / len(said),
    }


def true_score(request: Request, answer: str, known: set[str]) -> float:
    """The product of the qualities, so that nothing makes up for one that is missing."""
    return math.prod(answer_quality(request, answer, known).values())


def bootstrap_interval(values: torch.Tensor, draws: int = 4000) -> tuple[float, float]:
    """The 95% interval of a mean over requests: the bootstrap's percentiles (Efron 1979).

    `values`, (N,), has one for each request. Draws from a generator of its own: the same values always give
    the same interval.
    """
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(len(values), (draws, len(values)), generator=generator)  # (draws, N)
    low, high = values[rows].mean(dim=1).quantile(torch.tensor([0.025, 0.975])).tolist()
    return low, high


class Task:
    """What the models of chapter 14 are asked, what they learn from, and how their answers are judged.

    `text` is the training split. `train`, `dev` and `exam` are the requests in three sets, `lessons` the
    sentences that fulfil the first set's, `known` the words that count as real.
    """

    def __init__(self, text: str, tokenizer: CharTokenizer):
        sentences = answer_sentences(text)
        begins = Counter(sentence[0] for sentence in sentences)
        letters = sorted(letter for letter, times in begins.items() if times >= 40)
        requests = [Request(*parts) for parts in product(SENTENCE_KINDS.values(), letters, COUNT_WORDS)]
        random.Random(14).shuffle(requests)
        self.train, self.dev, self.exam = requests[:128], requests[128:153], requests[153:]
        self.lessons = [sentence for sentence in sentences if request_of(sentence) in set(self.train)]
        self.tokenizer, self.known = tokenizer, set(words_in(text))

    def encode_prompts(self, requests: list[Request]) -> torch.Tensor:
        """The requests' prompts as ids, (N, PROMPT_LENGTH)."""
        return torch.tensor([self.tokenizer.encode(request.prompt) for request in requests])

    def encode_answers(self, sentences: list[str]) -> torch.Tensor:
        """Sentences as ids, each with its line end and padding, (N, ANSWER_LENGTH)."""
        return torch.tensor([self.tokenizer.encode(s.ljust(ANSWER_LENGTH, "\n")) for s in sentences])

    def true_scores(self, requests: list[Request], answers: torch.Tensor) -> torch.Tensor:
        """The true score of each answer to its request, (N, A) -> (N,)."""
        pairs = zip(requests, answer_texts(self.tokenizer, answers), strict=True)
        return torch.tensor([true_score(request, text, self.known) for request, text in pairs])

    def judge(self, requests: list[Request], answers: torch.Tensor) -> dict[str, torch.Tensor]:
        """Of each answer its five criteria, its true score and whether it does what was asked.

        answers (N * each, A), those to the first of N requests first; each measure is (N, each).
        """
        asked = repeated_requests(requests, len(answers) // len(requests))
        rows = []
        for request, text in zip(asked, answer_texts(self.tokenizer, answers), strict=True):
            quality = answer_quality(request, text, self.known)
            score = math.prod(quality.values())
            rows.append({**quality, "true score": score, "fulfilled": float(fulfils(request, text))})
        return {name: torch.tensor([row[name] for row in rows]).view(len(requests), -1) for name in rows[0]}


def repeated_requests(requests: list[Request], each: int) -> list[Request]:
    """Each request `each` times, one after the other."""
    return [request for request in requests for _ in range(each)]
