"""The GPT of chapter 11: its configuration, dropout and start, and faults that would break them."""

import math
from dataclasses import FrozenInstanceError
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import Suite, close, count, draw_ids, refusals, seeded, suite_tests
from torch import nn

from lecture_lib import gpt as gpt_module
from lecture_lib.gpt import GPT, DropoutHead, GPTConfig, initialise
from lecture_lib.layer_norm import LayerNormModel
from lecture_lib.training import eval_mode

TINY = {"vocab_size": 11, "block_size": 6, "n_embd": 8, "n_head": 2, "n_layer": 3}
FULL = GPTConfig(block_size=256, n_embd=384, n_head=6, n_layer=6, dropout=0.2)


starts = Suite(gpt_module)


def make(library=gpt_module, dropout: float = 0.0, **changes) -> GPT:
    return seeded(library.GPT, library.GPTConfig(**{**TINY, **changes}, dropout=dropout))


# ---------------------------------------------------------------- the configuration


test_a_model_that_cannot_be_built_is_refused = refusals(
    ("n_embd is 10, n_head is 4; expected n_head to divide n_embd", partial(GPTConfig, n_embd=10, n_head=4)),
    ("block_size is 0; expected a whole number of at least 1", partial(GPTConfig, block_size=0)),
    ("n_layer is -1; expected a whole number", partial(GPTConfig, n_layer=-1)),
    ("n_embd is 6.4; expected a whole number", partial(GPTConfig, n_embd=6.4)),
    ("dropout is 1.0; expected a share from 0", partial(GPTConfig, dropout=1.0)),
    ("dropout is -0.1; expected a share from 0", partial(GPTConfig, dropout=-0.1)),
    ("dropout is nan; expected a share from 0", partial(GPTConfig, dropout=math.nan)),
)


def test_a_configuration_stays_as_it_was_checked():
    with pytest.raises(FrozenInstanceError):
        GPTConfig().n_head = 3  # which does not divide n_embd


@pytest.mark.parametrize(("config", "parameters"), [(GPTConfig(), 209_729), (FULL, 10_788_929)])
def test_the_lectures_sizes(config, parameters):
    with torch.device("meta"):
        assert count(GPT(config)) == parameters


@settings(deadline=None, max_examples=20)
@given(
    n_head=st.integers(1, 3), hs=st.integers(1, 4), n_layer=st.integers(1, 3), block_size=st.integers(1, 6)
)
def test_any_valid_configuration_works(n_head, hs, n_layer, block_size):
    sizes = {"n_head": n_head, "n_embd": n_head * hs, "n_layer": n_layer, "block_size": block_size}
    idx, targets = torch.randint(11, (2, 3, block_size))
    logits, loss = make(dropout=0.1, **sizes)(idx, targets)
    assert logits.shape == (3, block_size, 11) and loss.isfinite()


# ---------------------------------------------------------------- dropout and the start, as properties


@starts.holds
def is_chapter_10_without_dropout(library):
    before = seeded(LayerNormModel, 11, block_size=6, n_embd=8, n_head=2, n_layer=3)
    idx, targets = draw_ids(2, 4, 6)
    for ours, theirs in zip(make(library)(idx, targets), before(idx, targets), strict=True):
        assert torch.equal(ours, theirs)


@starts.holds
def drops_nothing_in_eval_mode(library):
    idx = draw_ids(4, 6)
    model = make(library, dropout=0.5)
    with eval_mode(model):
        assert torch.equal(model(idx)[0], model(idx)[0])
        assert torch.equal(model(idx)[0], make(library)(idx)[0])


@starts.holds
def drops_in_three_places(library):
    """Each block has the three dropouts, with the share asked for, and each of them zeroes something."""
    model = make(library, dropout=0.5)
    for block in model.body[:-1]:
        attend, think = block.sa[0], block.ffwd[0]
        assert hasattr(attend, "heads") and not hasattr(think, "heads")
        for layer in (*(head.dropout for head in attend.heads), block.sa[1], block.ffwd[1]):
            assert isinstance(layer, nn.Dropout) and layer.p == 0.5
        x = torch.randn(2, 6, 8)
        assert (attend.heads[0].attend(x)[1].diagonal(dim1=1, dim2=2) == 0).any()
        assert (block.sa(x) == 0).any() and (block.ffwd(x) == 0).any() and not (think(x) == 0).any()


@starts.holds
def starts_without_opinions(library):
    idx, targets = draw_ids(2, 200, 6, vocab_size=65)
    model = library.initialise(make(library, vocab_size=65, n_embd=64, n_head=4))
    assert abs(model(idx, targets)[1] - math.log(65)) < 0.05


@starts.holds
def keeps_the_pathways_width(library):
    """Over 24 blocks it grows by less than half; with writers as wide as the rest it grows eight times."""
    model = library.initialise(make(library, n_layer=24, n_embd=64, n_head=4))
    x = model.embed(draw_ids(4, 6))
    assert model.body[:-1](x).std() < 1.7 * x.std()


@starts.holds
def draws_matrices_and_zeroes_biases(library):
    model = library.initialise(make(library, n_embd=64))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif parameter.dim() == 1:
            assert (parameter == 1).all(), name
        else:
            narrow = name.endswith(("proj.weight", "net.2.weight"))
            std = 0.02 / math.sqrt(6) if narrow else 0.02
            assert abs(parameter.std() / std - 1) < 0.2, name


starts.faults = [
    ("dropout active in eval", "WideFeedForward(config.n_embd), nn.Dropout(config.dropout)",
     "WideFeedForward(config.n_embd), "
     "type('On', (nn.Dropout,), {'forward': lambda s, x: nn.functional.dropout(x, s.p)})(config.dropout)",
     drops_nothing_in_eval_mode),
    ("head forgets its dropout", "self.dropout = nn.Dropout(dropout)", "pass", drops_in_three_places),
    ("half the share", "partial(DropoutHead, dropout=config.dropout)",
     "partial(DropoutHead, dropout=config.dropout / 2)", drops_in_three_places),
    ("no dropout on attention", "(attention, nn.Dropout(config.dropout))", "(attention, nn.Identity())",
     drops_in_three_places),
    ("no dropout on the feed-forward", "n_embd), nn.Dropout(config.dropout))", "n_embd), nn.Identity())",
     drops_in_three_places),
    ("a block too few", "range(config.n_layer)", "range(config.n_layer - 1)", is_chapter_10_without_dropout),
    ("final norm missing", "(*blocks, nn.LayerNorm(config.n_embd))", "(*blocks, nn.Identity())",
     is_chapter_10_without_dropout),
    ("parts in the wrong order", "config.n_embd, sa, ffwd)", "config.n_embd, ffwd, sa)",
     is_chapter_10_without_dropout),
    ("one block many times", "blocks = (decoder_block(config) for _ in range(config.n_layer))",
     "blocks = [decoder_block(config)] * config.n_layer", is_chapter_10_without_dropout),
    ("writers as wide as the rest", "std / math.sqrt(len(writers)) if id(parameter) in narrow else std",
     "std", (keeps_the_pathways_width, draws_matrices_and_zeroes_biases)),
    ("the layers that read are narrow", "nn.Linear)][-1]", "nn.Linear)][0]",
     draws_matrices_and_zeroes_biases),
    ("biases left", 'name.endswith("bias")', "False", draws_matrices_and_zeroes_biases),
    ("ten times as wide", "std: float = 0.02", "std: float = 0.2", starts_without_opinions),
]  # fmt: skip

test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(starts)


def test_dropout_keeps_the_mean_of_the_weights():
    head = seeded(DropoutHead, n_embd=4, head_size=4, block_size=3, dropout=0.3)
    x = torch.randn(1, 3, 4).expand(20_000, 3, 4)
    mean = head.attend(x)[1].mean(dim=0)
    close(mean, head.eval().attend(x)[1][0], atol=0.02)


def test_initialise_returns_the_model_and_follows_the_seed():
    model, other = make(), make()
    for each in (model, other):
        assert seeded(initialise, each) is each
    assert torch.equal(model.lm_head.weight, other.lm_head.weight)
    initialise(other)
    assert not torch.equal(model.lm_head.weight, other.lm_head.weight)
