"""Scores without noise, chapter 13b."""

import torch
from kit import Suite, refusals, suite_tests
from texts import V, some_text
from torch import nn
from torch.nn import functional as F

from lecture_lib import evaluation
from lecture_lib.gpt import GPT, GPTConfig

scoring = Suite(evaluation)


def small_model(dropout=0.0):
    return GPT(GPTConfig(V, block_size=16, n_embd=16, n_head=2, n_layer=1, dropout=dropout))


@scoring.holds
def blocks_score_each_token_once(library):
    for n in (2, 5, 9, 10, 150):
        pairs = list(library.consecutive_blocks(torch.arange(n), 4))
        assert all(0 < len(xb) <= 32 and yb.numel() and (yb - xb == 1).all() for xb, yb in pairs)
        assert [i for _, yb in pairs for i in yb.flatten().tolist()] == list(range(1, n))


@scoring.holds
def the_split_loss_is_the_mean_over_tokens(library):
    """Two whole blocks and a short one: weighted by their tokens, and without dropout."""
    model, ids = small_model(dropout=0.5).eval(), some_text(16 * 2 + 6)
    parts = [(ids[a:b], ids[a + 1 : b + 1]) for a, b in ((0, 16), (16, 32), (32, 37))]
    expected = sum(model(x[None], y[None])[1].item() * len(x) for x, y in parts) / 37
    assert abs(library.split_loss(model.train(), ids) - expected) < 1e-5
    assert model.training


@scoring.holds
def overlapping_windows_score_with_more_context(library):
    """17 to 24 from the window that begins at 8, 25 and 26 from the last one; without dropout."""
    model, ids = small_model(dropout=0.5).eval(), some_text(16 + 8 + 2 + 1)
    nn.init.normal_(model.lm_head.weight)
    with torch.no_grad():
        total = sum(
            F.cross_entropy(model(ids[None, a:b])[0][0, -new:], ids[b - new + 1 : b + 1], reduction="sum")
            for a, b, new in ((0, 16, 16), (8, 24, 8), (10, 26, 2))
        )
    assert abs(library.strided_loss(model.train(), ids, 8) - total.item() / 26) < 1e-5
    assert model.training


test_what_is_refused = refusals(
    *(
        (f"stride is {stride}; expected 1 to block_size = 16", evaluation.strided_loss, small_model(),
         some_text(), stride)
        for stride in (0, 17)
    )
)  # fmt: skip

scoring.faults = [
    ("short block forgotten", "if whole < len(xs)", "if False", blocks_score_each_token_once),
    ("an empty block", "if whole < len(xs)", "if True", blocks_score_each_token_once),
    ("targets not shifted", "ids[:-1].split(block_size)", "ids[1:].split(block_size)",
     blocks_score_each_token_once),
    ("mean of blocks", "* yb.numel()\n    return total / (len(ids) - 1)", "\n    return total / 3",
     the_split_loss_is_the_mean_over_tokens),
    ("dropout on", "with eval_mode(model):\n        for xb", "if True:\n        for xb",
     the_split_loss_is_the_mean_over_tokens),
    ("dropout on in windows", "with eval_mode(model):\n        for end", "if True:\n        for end",
     overlapping_windows_score_with_more_context),
    ("the end forgotten", ", stride), len(ids) - 1]", ", stride)]",
     overlapping_windows_score_with_more_context),
    ("old tokens scored", "logits[0, done - end :]", "logits[0, : end - done]",
     overlapping_windows_score_with_more_context),
]  # fmt: skip

test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(scoring)
