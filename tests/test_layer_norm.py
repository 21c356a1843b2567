"""Layer norm, and the block and the model of chapter 10."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import DOUBLE, Suite, close, count, draw, seeded, suite_tests
from torch import nn
from torch.nn import functional as F

from lecture_lib import layer_norm
from lecture_lib.layer_norm import LayerNorm, LayerNormModel
from lecture_lib.residual import ProjectedAttention, ResidualModel, WideFeedForward

VOCAB = 11
norms = Suite(layer_norm, B=2, T=4, n_head=2, hs=3, n_layer=2)


def loud(*shape, seed=1337):
    """Numbers of mean 1 and standard deviation 3: what a norm has to do something about."""
    return 1 + 3 * draw(*shape, seed=seed)


def shaken(module):
    """In double precision, with random numbers in every parameter: no gain is 1, no shift 0, no two alike."""
    for seed, parameter in enumerate(module.double().parameters()):
        parameter.data = draw(*parameter.shape, seed=seed)
    return module


def make_block(library, T, n_head, hs):
    C = n_head * hs
    return shaken(library.Block(C, ProjectedAttention(C, n_head, T), WideFeedForward(C)))


def make_model(library, T, n_head, hs, n_layer):
    return shaken(library.LayerNormModel(VOCAB, T, n_head * hs, n_head, n_layer))


def find(module, kind):
    return [part for part in module.modules() if isinstance(part, kind)]


def normed(norm, x):
    """What torch makes of x with the gain and shift of `norm`, whatever `norm` itself would do."""
    gain, shift = norm.parameters()
    return F.layer_norm(x, x.shape[-1:], gain, shift)


def heard_by(part, model, x):
    """The input that `part` gets while `model` works on x."""
    heard = []
    handle = part.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    model(x)
    handle.remove()
    return heard[0]


def silence(block):
    """Make the last layer of both parts 0."""
    for parameter in (*block.sa.proj.parameters(), *block.ffwd.net[-1].parameters()):
        nn.init.zeros_(parameter)


# ---------------------------------------------------------------- the norm


@norms.holds
def equals_torch(library, B, T, n_head, hs):
    """Output and all gradients, for rows and for texts and two values of eps, in double."""
    C = n_head * hs
    for shape in ((T, C), (B, T, C)):
        for eps in (1e-5, 0.5):
            ours = shaken(library.LayerNorm(C, eps))
            x, above = loud(*shape).requires_grad_(), draw(*shape, seed=1)
            theirs = F.layer_norm(x, (C,), ours.gamma, ours.beta, eps)
            close(ours(x), theirs)
            gradients = (torch.autograd.grad(y, (x, ours.gamma, ours.beta), above) for y in (ours(x), theirs))
            for one, other in zip(*gradients, strict=True):
                close(one, other)


@norms.holds
def brings_each_token_into_range(library, B, T, n_head, hs):
    """A new norm, gain 1 and shift 0: mean 0 and variance 1 in each token's vector."""
    y = library.LayerNorm(n_head * hs, eps=1e-12).double()(loud(B, T, n_head * hs))
    close(y.mean(dim=-1), torch.zeros(B, T, dtype=DOUBLE))
    close(y.var(dim=-1, unbiased=False), torch.ones(B, T, dtype=DOUBLE), atol=1e-6)


@norms.holds
def never_talks_between_tokens(library, B, T, n_head, hs):
    """The derivative of a token's output by any other token's input is exactly 0, by its own it is not."""
    norm, x = shaken(library.LayerNorm(n_head * hs)), loud(B, T, n_head * hs)
    jacobian = torch.autograd.functional.jacobian(norm, x).norm(dim=(2, 5)).view(B * T, B * T)
    own = torch.eye(B * T, dtype=torch.bool)
    assert (jacobian[~own] == 0).all() and (jacobian[own] > 0).all()


@norms.holds
def forgets_scale_and_offset(library, B, T, n_head, hs):
    norm, x = shaken(library.LayerNorm(n_head * hs, eps=1e-12)), loud(B, T, n_head * hs)
    scale, offset = loud(B, T, 1, seed=2).exp(), loud(B, T, 1, seed=3)  # each token's own
    close(norm(scale * x + offset), norm(x), atol=1e-6)


@norms.holds
def makes_the_shift_of_a_constant(library, B, T, n_head, hs):
    norm = shaken(library.LayerNorm(n_head * hs))
    close(norm(torch.full((B, T, n_head * hs), 7.0, dtype=DOUBLE)), norm.beta.expand(B, T, -1))


# ---------------------------------------------------------------- the block


@norms.holds
def block_normalises_before_each_part(library, B, T, n_head, hs):
    block, x = make_block(library, T, n_head, hs), loud(B, T, n_head * hs)
    y = x + block.sa(normed(block.ln1, x))
    close(block(x), y + block.ffwd(normed(block.ln2, y)))


@norms.holds
def block_has_shifts_unless_told(library, n_head, hs):
    for bias in (True, False):
        block = library.Block(n_head * hs, nn.Identity(), nn.Identity(), bias)
        assert [norm.bias is not None for norm in find(block, nn.LayerNorm)] == [bias, bias]


@norms.holds
def silent_block_leaves_the_pathway_untouched(library, B, T, n_head, hs):
    """With both parts answering 0: what goes in comes out, and so does the gradient, bit for bit."""
    block = make_block(library, T, n_head, hs)
    silence(block)
    x, above = loud(B, T, n_head * hs).requires_grad_(), draw(B, T, n_head * hs, seed=1)
    assert torch.equal(block(x), x)
    assert torch.equal(torch.autograd.grad(block(x), x, above)[0], above)


@norms.holds
def parts_do_not_hear_how_loud_it_is(library, B, T, n_head, hs):
    """A pathway 10 times as large, or moved by 5, is the same to both parts, if the first adds nothing."""
    block, x = make_block(library, T, n_head, hs), loud(B, T, n_head * hs)
    silence(block)
    for part in (block.sa, block.ffwd):
        for changed in (10 * x, x + 5):
            close(heard_by(part, block, changed), heard_by(part, block, x), atol=1e-3)


# ---------------------------------------------------------------- the model


@norms.holds
def model_goes_through_its_blocks(library, B, T, n_head, hs, n_layer):
    model = make_model(library, T, n_head, hs, n_layer)
    idx = torch.arange(B * T).view(B, T) % VOCAB
    *blocks, last = model.body
    assert len(blocks) == n_layer and isinstance(last, nn.LayerNorm)
    x = model.embed(idx)
    for block in blocks:
        x = block(x)
    close(model(idx)[0], model.lm_head(normed(last, x)))


@norms.holds
def logits_do_not_hear_how_loud_it_is(library, B, T, n_head, hs, n_layer):
    """With silent blocks and embeddings 10 times as large, the logits stay as they are."""
    model, x = make_model(library, T, n_head, hs, n_layer), loud(B, T, n_head * hs)
    for block in find(model, library.Block):
        silence(block)
    close(model.body(10 * x), model.body(x), atol=1e-3)


@norms.holds
def model_has_norms_of_its_own(library, T, n_head, hs, n_layer):
    """Two in each block and one at the end: none shared, none left out."""
    assert len(find(make_model(library, T, n_head, hs, n_layer), nn.LayerNorm)) == 2 * n_layer + 1


test_at_any_size = norms.at_any_size(
    examples=6, B=range(1, 4), T=range(2, 5), n_head=range(1, 3), hs=range(3, 6), n_layer=range(1, 3)
)


@settings(deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), max_size=3),
    C=st.integers(1, 7),
    eps=st.sampled_from([1e-12, 1e-5, 0.1]),
)
def test_equal_to_torchs_layer_at_any_shape(shape, C, eps):
    """Against `nn.LayerNorm` itself, with none, one or more leading dimensions."""
    ours, theirs, x = LayerNorm(C, eps), nn.LayerNorm(C, eps), loud(*shape, C)
    close(ours.double()(x), theirs.double()(x))
    close(shaken(ours)(x), shaken(theirs)(x))


def test_numbers_worked_by_hand():
    x = torch.tensor([[1.0, 3.0], [10.0, 10.0]])  # means 2 and 10, variances 1 and 0
    close(LayerNorm(2, eps=0.0)(x[:1]), torch.tensor([[-1.0, 1.0]]))
    close(LayerNorm(2, eps=3.0)(x), torch.tensor([[-0.5, 0.5], [0.0, 0.0]]))  # 1 / sqrt(1 + 3)


def test_nothing_to_remember_and_one_mode():
    norm, x = shaken(LayerNorm(6)), loud(3, 6)
    assert torch.equal(norm.train()(x), norm.eval()(x))
    assert sorted(norm.state_dict()) == ["beta", "gamma"] and not list(norm.buffers()) and count(norm) == 12


def test_parameters_in_the_lectures_order():
    """The norms draw nothing, so a seed gives the matrices of the residual model."""
    models = (seeded(kind, 65, 8, 32, 4, 3) for kind in (LayerNormModel, ResidualModel))
    ours, theirs = ([p for p in model.parameters() if p.dim() == 2] for model in models)
    assert len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))


STATISTICS = """x.mean(dim=-1, keepdim=True)
        var = x.var(dim=-1, keepdim=True, unbiased=False)"""
VARIANCE = "x.var(dim=-1, keepdim=True, unbiased=False)"
ROOT = "/ torch.sqrt(var + self.eps)"
FIRST, SECOND = "x = x + self.sa(self.ln1(x))", "return x + self.ffwd(self.ln2(x))"
PAIR = "nn.LayerNorm(n_embd, bias=bias), nn.LayerNorm(n_embd, bias=bias)"


def over(dims: str) -> str:
    return STATISTICS.replace("dim=-1", f"dim={dims}")


# The models take torch's norm, so a fault in the norm written by hand cannot show in them.
norms.faults = [
    ("over the batch", STATISTICS, over("0"), never_talks_between_tokens),
    ("over time", STATISTICS, over("-2"), never_talks_between_tokens),
    ("over time and channels", STATISTICS, over("(-2, -1)"), never_talks_between_tokens),
    ("over the whole batch", STATISTICS, over("tuple(range(x.dim()))"), never_talks_between_tokens),
    ("unbiased variance", VARIANCE, "x.var(dim=-1, keepdim=True)", brings_each_token_into_range),
    ("mean square for variance", VARIANCE, "x.square().mean(dim=-1, keepdim=True)", forgets_scale_and_offset),
    ("eps outside the root", ROOT, "/ (torch.sqrt(var) + self.eps)", equals_torch),
    ("eps forgotten", ROOT, "/ torch.sqrt(var)", (equals_torch, makes_the_shift_of_a_constant)),
    ("root forgotten", ROOT, "/ (var + self.eps)", (brings_each_token_into_range, forgets_scale_and_offset)),
    ("mean not subtracted", "(x - mean)", "x", (brings_each_token_into_range, forgets_scale_and_offset)),
    ("gain missing", "self.gamma * (x - mean)", "(x - mean)", equals_torch),
    ("shift missing", " + self.beta", "", makes_the_shift_of_a_constant),
    ("statistics without gradient", "(x - mean)", "(x - mean.detach())", equals_torch),
    ("post-norm", f"{FIRST}\n        {SECOND}",
     "x = self.ln1(x + self.sa(x))\n        return self.ln2(x + self.ffwd(x))",
     (block_normalises_before_each_part, silent_block_leaves_the_pathway_untouched)),
    ("pathway normalised too", FIRST, "x = self.ln1(x)\n        x = x + self.sa(x)",
     silent_block_leaves_the_pathway_untouched),
    ("ln1 not used", FIRST, "x = x + self.sa(x)", parts_do_not_hear_how_loud_it_is),
    ("ln2 not used", SECOND, "return x + self.ffwd(x)", parts_do_not_hear_how_loud_it_is),
    ("ln1 used twice", SECOND, "return x + self.ffwd(self.ln1(x))", block_normalises_before_each_part),
    ("one norm for both", PAIR, "(nn.LayerNorm(n_embd),) * 2", model_has_norms_of_its_own),
    ("shifts always", PAIR, PAIR.replace(", bias=bias", ""), block_has_shifts_unless_told),
    ("second part hears the first's norm", SECOND, "return x + self.ffwd(self.sa(self.ln2(x)))",
     block_normalises_before_each_part),
    ("no residual", FIRST, "x = self.sa(self.ln1(x))", silent_block_leaves_the_pathway_untouched),
    ("final norm missing", ", nn.LayerNorm(n_embd))", ")", logits_do_not_hear_how_loud_it_is),
    ("final norm first", "*(make_block() for _ in range(n_layer)), nn.LayerNorm(n_embd)",
     "nn.LayerNorm(n_embd), *(make_block() for _ in range(n_layer))", model_goes_through_its_blocks),
]  # fmt: skip
test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(norms)
