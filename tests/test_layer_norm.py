"""Layer norm, the block and the model of chapter 10: what must hold, and faults that would break it.

Each property is a function of an implementation: the module `layer_norm`, or a copy of it with one place of
its source changed. The module passes them all; a planted fault fails exactly those that the table names.
"""

from types import ModuleType

import pytest
import torch
from faults import fault_tests
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lecture_lib import layer_norm
from lecture_lib.layer_norm import LayerNorm, LayerNormModel
from lecture_lib.residual import ProjectedAttention, ResidualModel, WideFeedForward

DOUBLE = torch.float64
VOCAB = 11


def draw(*shape: int, seed: int = 1337) -> torch.Tensor:
    """Numbers of mean 1 and standard deviation 3: what a norm has to do something about."""
    return 1 + 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def close(actual: torch.Tensor, expected: torch.Tensor, atol: float = 1e-10) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def shaken(module: nn.Module) -> nn.Module:
    """In double precision, with random numbers in every parameter: no gain is 1, no shift 0, no two alike."""
    generator = torch.Generator().manual_seed(1337)
    for parameter in module.double().parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=DOUBLE)
    return module


def make_norm(library: ModuleType, C: int, **how: float) -> nn.Module:
    return shaken(library.LayerNorm(C, **how))


def make_block(library: ModuleType, T: int, n_head: int, hs: int) -> nn.Module:
    C = n_head * hs
    return shaken(library.Block(C, ProjectedAttention(C, n_head, T), WideFeedForward(C)))


def make_model(library: ModuleType, T: int, n_head: int, hs: int, n_layer: int) -> nn.Module:
    return shaken(library.LayerNormModel(VOCAB, T, n_head * hs, n_head, n_layer))


def normed(norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What torch makes of x with the gain and shift of `norm`, whatever `norm` itself would do."""
    gain, shift = norm.parameters()
    return F.layer_norm(x, x.shape[-1:], gain, shift)


def heard_by(part: nn.Module, model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The input that `part` gets while `model` works on x."""
    heard = []
    handle = part.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    model(x)
    handle.remove()
    return heard[0]


def silence(*layers: nn.Linear) -> None:
    for layer in layers:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


# ---------------------------------------------------------------- the norm


def equals_torch(library, B, T, n_head, hs, n_layer):
    """Output and all gradients, for rows and for texts and two values of eps, in double."""
    C = n_head * hs
    for shape in ((T, C), (B, T, C)):
        for eps in (1e-5, 0.5):
            ours = make_norm(library, C, eps=eps)
            x, above = draw(*shape).requires_grad_(), draw(*shape, seed=1)
            theirs = F.layer_norm(x, (C,), ours.gamma, ours.beta, eps)
            close(ours(x), theirs)
            inputs = (x, ours.gamma, ours.beta)
            expected = torch.autograd.grad(theirs, inputs, above)
            for a, b in zip(torch.autograd.grad(ours(x), inputs, above), expected, strict=True):
                close(a, b)


def brings_each_token_into_range(library, B, T, n_head, hs, n_layer):
    """A new norm, gain 1 and shift 0: mean 0 and variance 1 in each token's vector."""
    y = library.LayerNorm(n_head * hs, eps=1e-12).double()(draw(B, T, n_head * hs))
    close(y.mean(dim=-1), torch.zeros(B, T, dtype=DOUBLE))
    close(y.var(dim=-1, unbiased=False), torch.ones(B, T, dtype=DOUBLE), atol=1e-6)


def never_talks_between_tokens(library, B, T, n_head, hs, n_layer):
    """The derivative of a token's output by any other token's input is exactly 0, by its own it is not."""
    norm, x = make_norm(library, n_head * hs), draw(B, T, n_head * hs)
    jacobian = torch.autograd.functional.jacobian(norm, x).norm(dim=(2, 5)).view(B * T, B * T)
    own = torch.eye(B * T, dtype=torch.bool)
    assert (jacobian[~own] == 0).all() and (jacobian[own] > 0).all()


def forgets_scale_and_offset(library, B, T, n_head, hs, n_layer):
    norm, x = make_norm(library, n_head * hs, eps=1e-12), draw(B, T, n_head * hs)
    scale, offset = draw(B, T, 1, seed=2).exp(), draw(B, T, 1, seed=3)  # each token's own
    close(norm(scale * x + offset), norm(x), atol=1e-6)


def makes_the_shift_of_a_constant(library, B, T, n_head, hs, n_layer):
    norm = make_norm(library, n_head * hs)
    close(norm(torch.full((B, T, n_head * hs), 7.0, dtype=DOUBLE)), norm.beta.expand(B, T, -1))


# ---------------------------------------------------------------- the block


def block_normalises_before_each_part(library, B, T, n_head, hs, n_layer):
    block, x = make_block(library, T, n_head, hs), draw(B, T, n_head * hs)
    y = x + block.sa(normed(block.ln1, x))
    close(block(x), y + block.ffwd(normed(block.ln2, y)))


def block_shifts_unless_told(library, B, T, n_head, hs, n_layer):
    """`bias=False` makes two norms with a gain alone."""
    for bias in (True, False):
        block = library.Block(n_head * hs, nn.Identity(), nn.Identity(), bias)
        norms = [module for module in block.modules() if isinstance(module, nn.LayerNorm)]
        assert [norm.bias is not None for norm in norms] == [bias, bias]


def silent_block_leaves_the_pathway_untouched(library, B, T, n_head, hs, n_layer):
    """With both parts answering 0: what goes in comes out, and so does the gradient, bit for bit."""
    block = make_block(library, T, n_head, hs)
    silence(block.sa.proj, block.ffwd.net[-1])
    x, above = draw(B, T, n_head * hs).requires_grad_(), draw(B, T, n_head * hs, seed=1)
    assert torch.equal(block(x), x)
    assert torch.equal(torch.autograd.grad(block(x), x, above)[0], above)


def attention_does_not_hear_how_loud_it_is(library, B, T, n_head, hs, n_layer):
    """A pathway 10 times as large, or moved by 5, is the same to the attention."""
    block, x = make_block(library, T, n_head, hs), draw(B, T, n_head * hs)
    for changed in (10 * x, x + 5):
        close(heard_by(block.sa, block, changed), heard_by(block.sa, block, x), atol=1e-3)


def thinking_does_not_hear_how_loud_it_is(library, B, T, n_head, hs, n_layer):
    """The same for the feed-forward layer, with an attention that adds nothing."""
    block, x = make_block(library, T, n_head, hs), draw(B, T, n_head * hs)
    silence(block.sa.proj)
    for changed in (10 * x, x + 5):
        close(heard_by(block.ffwd, block, changed), heard_by(block.ffwd, block, x), atol=1e-3)


# ---------------------------------------------------------------- the model


def model_goes_through_its_blocks(library, B, T, n_head, hs, n_layer):
    model = make_model(library, T, n_head, hs, n_layer)
    idx = torch.arange(B * T).view(B, T) % VOCAB
    *blocks, last = model.body
    assert len(blocks) == n_layer and isinstance(last, nn.LayerNorm)
    x = model.embed(idx)
    for block in blocks:
        x = block(x)
    close(model(idx)[0], model.lm_head(normed(last, x)))


def logits_do_not_hear_how_loud_it_is(library, B, T, n_head, hs, n_layer):
    """With silent blocks and embeddings 10 times as large, the logits stay as they are."""
    model = make_model(library, T, n_head, hs, n_layer)
    for module in model.modules():
        if isinstance(module, library.Block):
            silence(module.sa.proj, module.ffwd.net[-1])
    x = draw(B, T, n_head * hs)
    close(model.body(10 * x), model.body(x), atol=1e-3)


def model_has_norms_of_its_own(library, B, T, n_head, hs, n_layer):
    """Two in each block and one at the end, each with a gain and a shift: none shared, none left out."""
    C = n_head * hs
    block = 4 * C**2 + C + 8 * C**2 + 5 * C + 2 * (2 * C)
    expected = (VOCAB + T) * C + n_layer * block + 2 * C + C * VOCAB + VOCAB
    assert sum(p.numel() for p in make_model(library, T, n_head, hs, n_layer).parameters()) == expected


def every_parameter_gets_a_gradient(library, B, T, n_head, hs, n_layer):
    torch.manual_seed(1337)
    model = library.LayerNormModel(VOCAB, T, n_head * hs, n_head, n_layer).double()
    idx = torch.arange(2 * 8 * T).view(2, 8, T) % VOCAB
    model(*idx)[1].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


PROPERTIES = [
    equals_torch,
    brings_each_token_into_range,
    never_talks_between_tokens,
    forgets_scale_and_offset,
    makes_the_shift_of_a_constant,
    block_normalises_before_each_part,
    block_shifts_unless_told,
    silent_block_leaves_the_pathway_untouched,
    attention_does_not_hear_how_loud_it_is,
    thinking_does_not_hear_how_loud_it_is,
    model_goes_through_its_blocks,
    logits_do_not_hear_how_loud_it_is,
    model_has_norms_of_its_own,
    every_parameter_gets_a_gradient,
]
SIZES = {"B": 2, "T": 4, "n_head": 2, "hs": 3, "n_layer": 2}

# ---------------------------------------------------------------- what is right passes


@pytest.mark.parametrize("holds", PROPERTIES, ids=lambda holds: holds.__name__)
def test_properties(holds):
    holds(layer_norm, **SIZES)


@settings(deadline=None, max_examples=6)
@given(
    B=st.integers(1, 3),
    T=st.integers(2, 4),
    n_head=st.integers(1, 2),
    hs=st.integers(3, 5),
    n_layer=st.integers(1, 2),
)
def test_properties_at_any_size(B, T, n_head, hs, n_layer):
    for holds in PROPERTIES:
        holds(layer_norm, B, T, n_head, hs, n_layer)


@settings(deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), max_size=3),
    C=st.integers(1, 7),
    eps=st.sampled_from([1e-12, 1e-5, 0.1]),
    affine=st.booleans(),
)
def test_equal_to_torchs_layer_at_any_shape(shape, C, eps, affine):
    """Against `nn.LayerNorm` itself, with none, one or more leading dimensions."""
    ours, theirs = LayerNorm(C, eps), nn.LayerNorm(C, eps)
    if affine:
        ours, theirs = shaken(ours), shaken(theirs)
    x = draw(*shape, C)
    torch.testing.assert_close(ours.double()(x), theirs.double()(x), rtol=0, atol=1e-10)


def test_gradcheck():
    assert torch.autograd.gradcheck(make_norm(layer_norm, 5), draw(2, 3, 5).requires_grad_())


def test_numbers_worked_by_hand():
    x = torch.tensor([[1.0, 3.0], [10.0, 10.0]])  # means 2 and 10, variances 1 and 0
    close(LayerNorm(2, eps=0.0)(x[:1]), torch.tensor([[-1.0, 1.0]]))
    close(LayerNorm(2, eps=3.0)(x), torch.tensor([[-0.5, 0.5], [0.0, 0.0]]))  # 1 / sqrt(1 + 3)


def test_nothing_to_remember_and_one_mode():
    norm, x = make_norm(layer_norm, 6), draw(3, 6)
    assert sorted(norm.state_dict()) == ["beta", "gamma"]
    assert not list(norm.buffers()) and sum(p.numel() for p in norm.parameters()) == 2 * 6
    assert torch.equal(norm.train()(x), norm.eval()(x))
    assert sorted(norm.state_dict()) == ["beta", "gamma"]


def test_parameters_at_the_lectures_sizes_and_in_its_order():
    """The norms draw nothing, so a seed gives the matrices of the residual model."""
    torch.manual_seed(1337)
    model = LayerNormModel(65, 8, 32, 4, 3)
    assert sum(p.numel() for p in model.parameters()) == 42_369
    torch.manual_seed(1337)
    without = ResidualModel(65, 8, 32, 4, 3)
    ours, theirs = ([p for p in m.parameters() if p.dim() == 2] for m in (model, without))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


# ---------------------------------------------------------------- planted faults are caught

(TORCH, RANGE, ALONE, SCALE, CONSTANT, BEFORE, SHIFTS, SILENT, ATTENTION, THINKING, MODEL, LOGITS, NORMS,
 GRADIENT) = PROPERTIES  # fmt: skip
# All that the norm alone must do with tokens told apart.
OF_THE_NORM = {TORCH, RANGE, ALONE, SCALE}
STATISTICS = """x.mean(dim=-1, keepdim=True)  # (..., C) -> (..., 1)
        var = x.var(dim=-1, keepdim=True, unbiased=False)"""
VARIANCE = "x.var(dim=-1, keepdim=True, unbiased=False)"
ROOT = "/ torch.sqrt(var + self.eps)"
FIRST, SECOND = "x = x + self.sa(self.ln1(x))", "return x + self.ffwd(self.ln2(x))"
PAIR = "nn.LayerNorm(n_embd, bias=bias), nn.LayerNorm(n_embd, bias=bias)"
LAST = ", nn.LayerNorm(n_embd))"


def over(dims: str) -> str:
    return STATISTICS.replace("dim=-1", f"dim={dims}")


# The fault, its place in the source, what it becomes, and all properties that must notice. The models take
# torch's norm, so a fault in the norm written by hand cannot show in them.
FAULTS = [
    ("over the batch", STATISTICS, over("0"), OF_THE_NORM),
    ("over time", STATISTICS, over("-2"), OF_THE_NORM),
    ("over time and channels", STATISTICS, over("(-2, -1)"), OF_THE_NORM),
    ("over the whole batch", STATISTICS, over("tuple(range(x.dim()))"), OF_THE_NORM),
    ("unbiased variance", VARIANCE, "x.var(dim=-1, keepdim=True)", {TORCH, RANGE}),
    ("mean square for variance", VARIANCE, "x.square().mean(dim=-1, keepdim=True)", {TORCH, RANGE, SCALE}),
    ("eps outside the root", ROOT, "/ (torch.sqrt(var) + self.eps)", {TORCH}),
    ("eps forgotten", ROOT, "/ torch.sqrt(var)", {TORCH, CONSTANT}),
    ("root forgotten", ROOT, "/ (var + self.eps)", {TORCH, RANGE, SCALE}),
    ("mean not subtracted", "(x - mean)", "x", {TORCH, RANGE, SCALE, CONSTANT}),
    ("gain missing", "self.gamma * (x - mean)", "(x - mean)", {TORCH}),
    ("shift missing", " + self.beta", "", {TORCH, CONSTANT}),
    ("statistics without gradient", "(x - mean)", "(x - mean.detach())", {TORCH}),
    ("post-norm", f"{FIRST}  # (B, T, C) + (B, T, C)\n        {SECOND}",
     "x = self.ln1(x + self.sa(x))\n        return self.ln2(x + self.ffwd(x))",
     {BEFORE, SILENT, ATTENTION}),
    ("pathway normalised too", FIRST, "x = self.ln1(x)\n        x = x + self.sa(x)", {BEFORE, SILENT}),
    ("ln1 not used", FIRST, "x = x + self.sa(x)", {BEFORE, ATTENTION, GRADIENT}),
    ("ln2 not used", SECOND, "return x + self.ffwd(x)", {BEFORE, THINKING, GRADIENT}),
    ("ln1 used twice", SECOND, "return x + self.ffwd(self.ln1(x))", {BEFORE, GRADIENT}),
    ("one norm for both", PAIR, "(nn.LayerNorm(n_embd),) * 2", {NORMS, SHIFTS}),
    ("shifts always", PAIR, PAIR.replace(", bias=bias", ""), {SHIFTS}),
    ("second part hears the first's norm", SECOND, "return x + self.ffwd(self.sa(self.ln2(x)))", {BEFORE}),
    ("no residual", FIRST, "x = self.sa(self.ln1(x))", {BEFORE, SILENT}),
    ("final norm missing", LAST, ")", {MODEL, LOGITS, NORMS}),
    ("final norm first", "*(make_block() for _ in range(n_layer)), nn.LayerNorm(n_embd)",
     "nn.LayerNorm(n_embd), *(make_block() for _ in range(n_layer))", {MODEL}),
]  # fmt: skip


test_a_planted_fault_is_caught, test_every_property_catches_a_fault = fault_tests(
    {layer_norm: (PROPERTIES, FAULTS)}, **SIZES
)
