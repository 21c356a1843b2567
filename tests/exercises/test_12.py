"""The exercises of 12_encoder_decoder."""

import torch
from answers import exercise_tests
from torch import nn


class Digit(nn.Module):
    """Logits by a rule, not by learning: those of the last digit's column, or of another one."""

    def __init__(self, rule):
        super().__init__()
        self.rule = rule

    def forward(self, ids):
        return self.rule(ids)


def last_digit(ids: torch.Tensor) -> torch.Tensor:
    """The last digit of each number, (B,)."""
    return ids.gather(1, (ids > 2).sum(dim=1, keepdim=True))[:, 0] - 3


def odd(ids: torch.Tensor) -> torch.Tensor:
    return nn.functional.one_hot(last_digit(ids) % 2, 2).float()  # (B,) -> (B, 2)


def but_for_nines(ids: torch.Tensor) -> torch.Tensor:
    return torch.where(last_digit(ids)[:, None] == 9, odd(ids).flip(1), odd(ids))


def by_last_column(ids: torch.Tensor) -> torch.Tensor:
    return odd(ids) + ids[:, -1:]


FORWARD = "for block in self.blocks"
POSITIONS = "(real.cumsum(dim=1) - 1).clamp(min=0)"

TestExercises = exercise_tests(
    "12",
    ("12.1", "one block", "You have one block's", "n_layer * (attention + norm)", "attention + norm"),
    ("12.1", "no norm", "a third norm, ln3", "(attention + norm)", "attention"),
    ("12.1", "no bias", "A vector of C numbers is missing", "4 * n_embd**2 + n_embd", "4 * n_embd**2"),
    ("12.1", "all biases", "have no bias here", "+ n_embd  #", "+ 4 * n_embd  #"),
    ("12.1", "no projection", "four matrices, not three", "4 * n_embd**2 + n_embd", "3 * n_embd**2"),
    ("12.1", "matrices only", "The matrices are right", "norm = 2 * n_embd", "norm = -n_embd"),
    ("12.2", "not causal", "future is still visible", "past & padding_mask(src)", "padding_mask(src)"),
    ("12.2", "transposed", "Your mask is transposed", "return past &", "return past.T &"),
    ("12.2", "inverted", "what it should show", "past & padding_mask", "~past & padding_mask"),
    ("12.2", "without itself", "has to see itself", "past & padding_mask(src)", "past.tril(-1)"),
    ("12.2", "blind padding", "attend to nothing", "past &", "(src != 0)[:, None, :, None] & past &"),
    ("12.2", "numbers", "dtype torch.bool", "past & padding_mask(src)", "past.float()"),
    ("12.2", "another class", "class CausalEncoder(Encoder)", "(Encoder)", "(nn.Module)"),
    (
        "12.3",
        "norms first",
        "The norms still come first",
        "self.ln1(x + self.sa(x, x, causal_mask(x.shape[1])))",
        "x + self.sa(self.ln1(x), self.ln1(x), causal_mask(x.shape[1]))",
        "self.ln3(x + self.ca(x, memory, memory_mask))",
        "x + self.ca(self.ln3(x), memory, memory_mask)",
        "self.ln2(x + self.ffwd(x))",
        "x + self.ffwd(self.ln2(x))",
    ),
    (
        "12.3",
        "norm inside",
        "the paper adds first",
        "self.ln1(x + self.sa(",
        "x + self.ln1(self.sa(",
        "self.ln3(x + self.ca(",
        "x + self.ln3(self.ca(",
        "self.ln2(x + ",
        "x + self.ln2(",
    ),
    ("12.3", "norms exchanged", "Two norms are exchanged", "ln3", "ln4", "ln2", "ln3", "ln4", "ln2"),
    ("12.3", "padding seen", "hand memory_mask on", "memory, memory_mask))", "memory))"),
    ("12.3", "not causal", "sees the future", ", causal_mask(x.shape[1])", ""),
    (
        "12.3",
        "nothing added",
        "The old x isn't added",
        "x + self.sa",
        "self.sa",
        "x + self.ca",
        "self.ca",
        "x + self.ffwd",
        "self.ffwd",
    ),
    ("12.4", "nothing changed", "This is what Encoder does", "forward(", "unused("),
    ("12.4", "first visible", "here that's padding", "real.clone()", "padding_mask(src)[:, 0, 0]"),
    ("12.4", "columns", "those of the columns", POSITIONS, "torch.arange(src.shape[1])"),
    ("12.4", "one too high", "too high by one", POSITIONS, "real.cumsum(dim=1)"),
    ("12.4", "nothing hidden", "nothing hides the padding", "real.clone()", "torch.ones_like(real)"),
    ("12.4", "NaN", "gives NaN", "visible[:, -1] = True", ""),
    (
        "12.5",
        "each token",
        "You give logits for each token",
        Digit(lambda ids: odd(ids)[:, None].repeat(1, 6, 1)),
    ),
    ("12.5", "exchanged", "the wrong way round", Digit(lambda ids: odd(ids).flip(1))),
    ("12.5", "guessing", "that's guessing", Digit(lambda ids: odd(ids) * 0)),
    ("12.5", "not yet learned", "Train longer", Digit(but_for_nines)),
    ("12.5", "last column", "read off the last column", Digit(by_last_column)),
)
