"""Problems with exact answers.

From notebooks/17b_addition.ipynb, section "3. What the loss counts".
Video 1:56:20.
Written by `lecture promote`: edit the notebook, not this file.

Wilson 1927: https://doi.org/10.1080/01621459.1927.10502953
"""

import math
from collections.abc import Callable, Iterator

import torch

from lecture_lib.kv_cache import left_padded
from lecture_lib.nanogpt import NanoGPT
from lecture_lib.tokenization import CharTokenizer
from lecture_lib.training import eval_mode

__all__ = [
    "IGNORE",
    "draw_operands",
    "encode_problems",
    "exact_matches",
    "problem_losses",
    "sum_problem",
    "wilson_interval",
    "write_answers",
]


def sum_problem(a: int, b: int, width: int = 3, reverse: bool = True) -> tuple[str, str]:
    """The prompt and the answer of a + b: both numbers with zeros up to `width`, the sum with one digit more.

    `reverse` writes the sum's units first. With `width` 0 nothing is padded.
    """
    total = f"{a + b:0{width + 1 if width else 0}}"
    return f"{a:0{width}}+{b:0{width}}=", total[::-1] if reverse else total


def draw_operands(n: int, lengths: tuple[int, ...] = (1, 2, 3)) -> torch.Tensor:
    """`n` pairs of whole numbers, (n, 2): first each number's length is drawn, then a number of that length.

    Draws from torch's global generator. A single digit may be 0; longer numbers don't begin with it.
    """
    digits = torch.tensor(lengths)[torch.randint(len(lengths), (n, 2))]  # (n, 2)
    least = torch.where(digits == 1, 0, 10 ** (digits - 1))
    return least + (torch.rand(n, 2) * (10**digits - least)).long()


IGNORE = -100  # the target at places that the loss skips; torch's own default


def encode_problems(
    tokenizer: CharTokenizer, problems: list[tuple[str, str]], answer_only: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets (B, T) of (prompt, answer) pairs, each answer closed by a line end.

    Line ends pad the rows on the right. The targets there are IGNORE, and so are those in the prompt unless
    `answer_only` is False. ValueError for no problems, or for an empty prompt.
    """
    if not problems or any(prompt == "" for prompt, _ in problems):
        raise ValueError(f"problems is {problems}; expected at least one, each with a prompt")
    lengths = [(len(prompt), len(prompt) + len(answer)) for prompt, answer in problems]
    T = max(end for _, end in lengths)
    rows = [tokenizer.encode((prompt + answer).ljust(T + 1, "\n")) for prompt, answer in problems]
    ids = torch.tensor(rows)  # (B, T + 1)
    start, end = torch.tensor(lengths)[:, :, None].unbind(1)  # (B, 1) each: the answer's places
    place = torch.arange(1, T + 1)  # (T,): of each target in its row
    counts = (place <= end) & (place >= start if answer_only else True)  # (T,), (B, 1) -> (B, T)
    return ids[:, :-1], ids[:, 1:].where(counts, IGNORE)


def problem_losses(
    model: NanoGPT,
    tokenizer: CharTokenizer,
    draw: Callable[[int], list[tuple[str, str]]],
    batch_size: int,
    answer_only: bool = True,
) -> Iterator[torch.Tensor]:
    """The loss of `batch_size` problems that `draw` has just made up, again and again."""
    device = next(model.parameters()).device
    while True:
        idx, targets = encode_problems(tokenizer, draw(batch_size), answer_only)  # (B, T) each
        yield model(idx.to(device), targets.to(device))[1]


@torch.no_grad()
def write_answers(
    model: NanoGPT, tokenizer: CharTokenizer, prompts: list[str], max_new_tokens: int
) -> list[str]:
    """What the model writes after each prompt, of any length, up to a line end: always the likeliest token.

    An answer without a line end has all `max_new_tokens` characters.
    """
    device, line_end, written = next(model.parameters()).device, tokenizer.stoi["\n"], []
    with eval_mode(model):
        for first in range(0, len(prompts), 256):
            some = [tokenizer.encode(prompt) for prompt in prompts[first : first + 256]]
            unread, pad = (ids.to(device) for ids in left_padded(some))  # (B, P), (B,)
            caches, answers = model.new_caches(len(some)), unread[:, :0]  # (B, 0)
            while answers.shape[1] < max_new_tokens and not (answers == line_end).any(dim=1).all():
                unread = model.read(unread, caches, pad).argmax(dim=-1, keepdim=True)  # (B, 1)
                answers = torch.cat([answers, unread], dim=1)  # (B, A), (B, 1) -> (B, A + 1)
            texts = map(tokenizer.decode, answers.cpu())
            written += [text.partition("\n")[0] for text in texts]
    return written


def exact_matches(
    model: NanoGPT,
    tokenizer: CharTokenizer,
    problems: list[tuple[str, str]],
    max_new_tokens: int | None = None,
) -> torch.Tensor:
    """Whether the model writes each problem's answer to the last character, and then a line end: (N,), bool.

    It may write `max_new_tokens` characters, by default one more than the longest answer has.
    """
    prompts, answers = zip(*problems, strict=True)
    limit = max_new_tokens or max(map(len, answers)) + 1
    written = write_answers(model, tokenizer, list(prompts), limit)
    return torch.tensor([text == answer for text, answer in zip(written, answers, strict=True)])


def wilson_interval(right: int, of: int) -> tuple[float, float]:
    """The 95% interval of a share, when `right` of `of` independent trials succeeded (Wilson 1927).

    ValueError unless 0 <= right <= of, and of is at least 1.
    """
    if not 0 <= right <= of or of < 1:
        raise ValueError(f"right is {right}, of is {of}; expected 0 <= right <= of, and at least one trial")
    z, share = 1.959964, right / of  # z: 95% of a normal distribution lie within as many standard deviations
    middle = share + z * z / (2 * of)
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return max(0.0, (middle - half) / (1 + z * z / of)), min(1.0, (middle + half) / (1 + z * z / of))
