"""Scores of a whole split, chapter 13b: each token once, in blocks or in windows that overlap."""

import pytest
import torch
from kit import Elsewhere, Suite, draw_ids, raises, refusals, seeded, suite_tests
from torch.nn import functional as F

from lecture_lib import evaluation
from lecture_lib.gpt import GPT, GPTConfig

scores = Suite(evaluation)


def make() -> GPT:
    """A model with a context of 16 whose dropout would spoil any score."""
    return seeded(GPT, GPTConfig(11, 16, 16, 2, 1, dropout=0.5))


def scored(model: GPT, ids: torch.Tensor, *windows: tuple[int, int, int]) -> float:
    """The mean loss of targets `first` to `end` in the window of inputs that begins at `start`."""
    total = 0.0
    with torch.no_grad():
        for start, first, end in windows:
            logits = model.eval()(ids[None, start : end - 1])[0][0]
            total += F.cross_entropy(logits[first - end :], ids[first:end], reduction="sum").item()
    model.train()
    return total / (len(ids) - 1)


@scores.holds
def blocks_hold_each_target_once(library):
    for n in (*range(2, 11), 150):
        blocks = list(library.consecutive_blocks(torch.arange(n), 4))
        assert all(len(xb) <= 32 and (yb - xb == 1).all() for xb, yb in blocks)
        assert [i for _, yb in blocks for i in yb.flatten().tolist()] == list(range(1, n))


@scores.holds
def split_loss_by_hand(library):
    """Two whole blocks and a short one, weighted by their tokens."""
    model, ids = make(), draw_ids(16 * 2 + 6)
    expected = scored(model, ids, (0, 1, 17), (16, 17, 33), (32, 33, 38))
    assert abs(library.split_loss(model, ids) - expected) < 1e-5 and model.training


@scores.holds
def strided_loss_by_hand(library):
    """17 to 24 from the window that begins at 8, 25 from the last one."""
    model, ids = make(), draw_ids(16 + 8 + 1 + 1)
    expected = scored(model, ids, (0, 1, 17), (8, 17, 25), (9, 25, 26))
    assert abs(library.strided_loss(model, ids, 8) - expected) < 1e-5 and model.training


@scores.holds
def the_shortest_stride_scores_a_token_a_window(library):
    model, ids = make(), draw_ids(16 + 3)
    expected = scored(model, ids, (0, 1, 17), (1, 17, 18), (2, 18, 19))
    assert abs(library.strided_loss(model, ids, 1) - expected) < 1e-5


@scores.holds
def windows_that_do_not_overlap_are_blocks(library):
    """Two of them, or a text that is shorter than the context."""
    model = make()
    for n in (16 * 2 + 1, 10):
        ids = draw_ids(n)
        assert abs(library.strided_loss(model, ids, 16) - library.split_loss(model, ids)) < 1e-5


@scores.holds
def build_no_graph(library):
    model, learning = make(), []
    model.register_forward_hook(lambda *_: learning.append(torch.is_grad_enabled()))
    library.split_loss(model, draw_ids(9))
    library.strided_loss(model, draw_ids(9), 8)
    assert learning == [False, False]


@scores.holds
def blocks_follow_the_model(library):
    with pytest.raises(Elsewhere.Arrived):
        library.split_loss(Elsewhere(), draw_ids(9))


@scores.holds
def windows_follow_the_model(library):
    with pytest.raises(Elsewhere.Arrived):
        library.strided_loss(Elsewhere(), draw_ids(9), 2)


scores.faults = [
    ("short block forgotten", "if whole < len(xs)", "if False",
     (blocks_hold_each_target_once, split_loss_by_hand)),
    ("an empty block", "if whole < len(xs)", "if True", blocks_hold_each_target_once),
    ("targets not shifted", "ids[:-1].split(block_size)", "ids[1:].split(block_size)",
     blocks_hold_each_target_once),
    ("mean of blocks", "* yb.numel()\n    return total / (len(ids) - 1)", "\n    return total / 3",
     split_loss_by_hand),
    ("dropout on", "with eval_mode(model):\n        for xb", "if True:\n        for xb", split_loss_by_hand),
    ("dropout on in windows", "with eval_mode(model):\n        for end", "if True:\n        for end",
     strided_loss_by_hand),
    ("the end forgotten", ", stride), len(ids) - 1]", ", stride)]", strided_loss_by_hand),
    ("a stride of 1 refused", "1 <= stride", "2 <= stride",
     raises(ValueError, the_shortest_stride_scores_a_token_a_window)),
    ("old tokens scored", "logits[0, done - end :]", "logits[0, : end - done]", strided_loss_by_hand),
    ("the last window twice", "range(size, len(ids) - 1, stride)", "range(size, len(ids), stride)",
     raises(ValueError, windows_that_do_not_overlap_are_blocks)),
    ("a short text begins with its end", "max(0, end - size)", "end - size",
     raises(ValueError, windows_that_do_not_overlap_are_blocks)),
    ("learns from blocks", "@torch.no_grad()\ndef split_loss", "def split_loss", build_no_graph),
    ("learns from windows", "@torch.no_grad()\ndef strided_loss", "def strided_loss", build_no_graph),
    ("blocks stay behind", "ids.to(device)", "ids", blocks_follow_the_model),
    ("windows stay behind", "ids = ids.to(next(model.parameters()).device)", "pass",
     windows_follow_the_model),
]  # fmt: skip

test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(scores)

test_what_is_refused = refusals(
    ("stride is 17; expected 1 to block_size = 16", evaluation.strided_loss, make(), draw_ids(40), 17),
    ("stride is 0; expected 1 to block_size = 16", evaluation.strided_loss, make(), draw_ids(40), 0),
)
