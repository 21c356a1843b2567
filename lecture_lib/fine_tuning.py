"""Supervised fine-tuning.

From notebooks/14_fine_tuning.ipynb.
Video 1:48:53.
Written by `lecture promote`: edit the notebook, not this file.
"""

import copy
from collections.abc import Iterator

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from lecture_lib.nanogpt import NanoGPT
from lecture_lib.requests import ANSWER_LENGTH, Request, Task, repeated_requests, request_of
from lecture_lib.training import eval_mode

__all__ = [
    "LINE_END",
    "answer_features",
    "answer_log_probs",
    "answer_loss",
    "answer_mask",
    "answer_requests",
    "fine_tune",
    "lesson_losses",
    "log_probs_of",
    "masked_mean",
    "optimise",
    "sample_answers",
]

LINE_END = 0  # the id of the line end, which closes an answer and pads its row


def answer_mask(answers: torch.Tensor) -> torch.Tensor:
    """True up to and including a row's first LINE_END, False at the padding after it: (B, A) -> (B, A)."""
    ends = (answers == LINE_END).int()
    return ends.cumsum(dim=1) - ends == 0  # (B, A): no LINE_END before this token


def answer_features(model: NanoGPT, prompts: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """The features just before each answer token, which predict it: (B, P), (B, A) -> (B, A, n_embd)."""
    idx = torch.cat([prompts, answers], dim=1)[:, :-1]  # (B, P + A - 1): the last token predicts nothing
    return model.body(model.embed(idx))[:, prompts.shape[1] - 1 :]  # from the prompt's last token on


def log_probs_of(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The log-probability of each token: logits (B, A, vocab_size), tokens (B, A) -> (B, A), in nats."""
    return logits.log_softmax(dim=-1).gather(-1, tokens[..., None]).squeeze(-1)


def answer_log_probs(model: NanoGPT, prompts: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """The log-probability of each answer token, given all before it: (B, P), (B, A) -> (B, A)."""
    return log_probs_of(model.lm_head(answer_features(model, prompts, answers)), answers)


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean over the positions where the mask is True: (B, A), (B, A) -> ()."""
    return (values * mask).sum() / mask.sum()


def answer_loss(model: NanoGPT, prompts: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the answers alone, in nats per token; prompts and padding don't count."""
    return -masked_mean(answer_log_probs(model, prompts, answers), answer_mask(answers))


def optimise(
    model: nn.Module, losses: Iterator[torch.Tensor], steps: int, learning_rate: float
) -> list[float]:
    """Take `steps` steps of AdamW, one on each of `losses`; returns their values. The model keeps its mode.

    The rate warms up over the first twentieth of the steps and falls to 0 at the end, both linearly.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0, fused=True)
    warm = max(1, steps // 20)
    schedule = LambdaLR(optimizer, lambda step: min(1, (step + 1) / warm) * (1 - step / steps))
    history = []
    for _, loss in zip(range(steps), losses, strict=False):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        history.append(loss.item())
    return history


def sample_answers(model: NanoGPT, prompts: torch.Tensor, max_new_tokens: int) -> torch.Tensor:
    """Draw an answer to each prompt, with dropout off: (N, P) -> (N, max_new_tokens), padded with LINE_END.

    Takes its draws from torch's global generator, for 128 prompts at a time.
    """
    with eval_mode(model):
        texts = [model.generate(some, max_new_tokens) for some in prompts.split(128)]  # (B, P + A) each
    answers = torch.cat(texts)[:, prompts.shape[1] :]  # (N, A)
    return answers.where(answer_mask(answers), LINE_END)


def lesson_losses(model: NanoGPT, prompts: torch.Tensor, answers: torch.Tensor) -> Iterator[torch.Tensor]:
    """The loss of 16 random lessons, again and again: prompts (N, P) and answers (N, A) are all there are."""
    while True:
        i = torch.randint(len(prompts), (16,))  # (B,)
        yield answer_loss(model, prompts[i], answers[i])


def fine_tune(model: NanoGPT, task: Task, steps: int, seed: int) -> NanoGPT:
    """A copy of the model after chapter 14's supervised fine-tuning on the task's lessons."""
    prompts = task.encode_prompts([request_of(sentence) for sentence in task.lessons])
    answers = task.encode_answers(task.lessons)
    torch.manual_seed(seed)
    tuned = copy.deepcopy(model)
    optimise(tuned, lesson_losses(tuned, prompts, answers), steps, learning_rate=2e-3)
    return tuned


def answer_requests(model: NanoGPT, task: Task, requests: list[Request], each: int) -> torch.Tensor:
    """`each` answers of the model to every request, (N * each, A), drawn after `torch.manual_seed(0)`."""
    torch.manual_seed(0)
    prompts = task.encode_prompts(repeated_requests(requests, each))  # (N * each, P)
    return sample_answers(model, prompts, ANSWER_LENGTH)
