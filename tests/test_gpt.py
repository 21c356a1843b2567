"""The GPT of chapter 11: its configuration, dropout and start, and faults that would break them."""

import math

import pytest
import torch
from faults import fault_tests
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lecture_lib import gpt as gpt_module
from lecture_lib.gpt import GPT, DropoutHead, GPTConfig, initialise
from lecture_lib.layer_norm import LayerNormModel
from lecture_lib.training import eval_mode

TINY = {"vocab_size": 11, "block_size": 6, "n_embd": 8, "n_head": 2, "n_layer": 3}
FULL = GPTConfig(block_size=256, n_embd=384, n_head=6, n_layer=6, dropout=0.2)


def make(library=gpt_module, dropout: float = 0.0, **changes) -> GPT:
    torch.manual_seed(1337)
    return library.GPT(library.GPTConfig(**{**TINY, **changes}, dropout=dropout))


def some_ids(vocab_size: int = 11, rows: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.randint(vocab_size, (2, rows, 6), generator=torch.Generator().manual_seed(7)))


# ---------------------------------------------------------------- the configuration


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_embd": 10, "n_head": 4}, "n_embd is 10, n_head is 4; expected n_head to divide n_embd"),
        ({"block_size": 0}, "block_size is 0; expected a whole number of at least 1"),
        ({"n_layer": -1}, "n_layer is -1; expected a whole number"),
        ({"n_embd": 6.4}, "n_embd is 6.4; expected a whole number"),
        ({"dropout": 1.0}, "dropout is 1.0; expected a share from 0"),
        ({"dropout": -0.1}, "dropout is -0.1; expected a share from 0"),
        ({"dropout": math.nan}, "dropout is nan; expected a share from 0"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        GPTConfig(**wrong)


@pytest.mark.parametrize(("config", "count"), [(GPTConfig(), 209_729), (FULL, 10_788_929)])
def test_the_lectures_sizes(config, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in GPT(config).parameters()) == count


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


def without_dropout_it_is_the_model_of_chapter_10(library):
    torch.manual_seed(1337)
    before = LayerNormModel(11, block_size=6, n_embd=8, n_head=2, n_layer=3)
    idx, targets = some_ids()
    for ours, theirs in zip(make(library)(idx, targets), before(idx, targets), strict=True):
        assert torch.equal(ours, theirs)


def dropout_is_off_in_eval_mode(library):
    idx, _ = some_ids()
    model = make(library, dropout=0.5)
    with eval_mode(model):
        assert torch.equal(model(idx)[0], model(idx)[0])
        assert torch.equal(model(idx)[0], make(library)(idx)[0])


def dropout_acts_on_weights_and_on_both_parts(library):
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


def it_starts_without_opinions(library):
    idx, targets = some_ids(65, rows=200)
    model = library.initialise(make(library, vocab_size=65, n_embd=64, n_head=4))
    assert abs(model(idx, targets)[1] - math.log(65)) < 0.05


def the_pathway_keeps_its_width(library):
    """Over 24 blocks it grows by less than half; with writers as wide as the rest it grows eight times."""
    model = library.initialise(make(library, n_layer=24, n_embd=64, n_head=4))
    x = model.embed(some_ids()[0])
    assert model.body[:-1](x).std() < 1.7 * x.std()


def every_matrix_is_drawn_and_every_bias_zero(library):
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


PROPERTIES = [
    without_dropout_it_is_the_model_of_chapter_10,
    dropout_is_off_in_eval_mode,
    dropout_acts_on_weights_and_on_both_parts,
    it_starts_without_opinions,
    the_pathway_keeps_its_width,
    every_matrix_is_drawn_and_every_bias_zero,
]
SAME, EVAL, PLACES, OPINIONS, WIDTH, DRAWN = PROPERTIES
FAULTS = [
    ("dropout active in eval", "nn.Sequential(part, nn.Dropout(config.dropout))",
     "nn.Sequential(part, type('On', (nn.Dropout,), {'forward': lambda s, x: nn.functional.dropout(x, s.p)})"
     "(config.dropout))", {EVAL}),
    ("head forgets its dropout", "self.dropout = nn.Dropout(dropout)", "pass", {PLACES}),
    ("half the share", "partial(DropoutHead, dropout=config.dropout)",
     "partial(DropoutHead, dropout=config.dropout / 2)", {PLACES}),
    ("no dropout on the parts", "nn.Dropout(config.dropout))", "nn.Identity())", {PLACES}),
    ("a block too few", "range(config.n_layer)", "range(config.n_layer - 1)", {SAME}),
    ("final norm missing", "(*blocks, nn.LayerNorm(config.n_embd))", "(*blocks, nn.Identity())", {SAME}),
    ("parts in the wrong order", "for part in (attend, think)", "for part in (think, attend)",
     {SAME, PLACES}),
    ("one block many times", "blocks = (decoder_block(config) for _ in range(config.n_layer))",
     "blocks = [decoder_block(config)] * config.n_layer", {SAME, WIDTH}),
    ("writers as wide as the rest", "std / math.sqrt(2 * model.config.n_layer) if writes else std", "std",
     {WIDTH, DRAWN}),
    ("biases left", 'name.endswith("bias")', "False", {WIDTH, DRAWN}),
    ("ten times as wide", "std: float = 0.02", "std: float = 0.2", {OPINIONS, WIDTH, DRAWN}),
]  # fmt: skip


@pytest.mark.parametrize("holds", PROPERTIES, ids=lambda holds: holds.__name__)
def test_properties(holds):
    holds(gpt_module)


test_a_planted_fault_is_caught, test_every_property_catches_a_fault = fault_tests(
    {gpt_module: (PROPERTIES, FAULTS)}
)


def test_dropout_keeps_the_mean_of_the_weights():
    torch.manual_seed(1337)
    head = DropoutHead(n_embd=4, head_size=4, block_size=3, dropout=0.3)
    x = torch.randn(1, 3, 4).expand(20_000, 3, 4)
    mean = head.attend(x)[1].mean(dim=0)
    torch.testing.assert_close(mean, head.eval().attend(x)[1][0], rtol=0, atol=0.02)


def test_initialise_returns_the_model_and_follows_the_seed():
    model, other = make(), make()
    for each in (model, other):
        torch.manual_seed(1)
        assert initialise(each) is each
    assert torch.equal(model.lm_head.weight, other.lm_head.weight)
    initialise(other)
    assert not torch.equal(model.lm_head.weight, other.lm_head.weight)
