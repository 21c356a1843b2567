"""Layer norm, and the block and the model of chapter 10."""

import torch
from kit import Suite, close, draw, seeded, suite_tests
from torch import nn
from torch.nn import functional as F

from lecture_lib import layer_norm
from lecture_lib.layer_norm import LayerNormModel
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
def has_torchs_eps(library, B, T, n_head, hs):
    """For numbers so small that eps decides how large they become."""
    C = n_head * hs
    x = 1e-3 * draw(B, T, C)
    close(library.LayerNorm(C).double()(x), nn.LayerNorm(C).double()(x))


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
def model_has_norms_of_its_own(library, T, n_head, hs, n_layer):
    """Two in each block and one at the end: none shared, none left out."""
    assert len(find(make_model(library, T, n_head, hs, n_layer), nn.LayerNorm)) == 2 * n_layer + 1


test_at_any_size = norms.at_any_size(
    examples=6, B=range(1, 4), T=range(2, 5), n_head=range(1, 3), hs=range(3, 6), n_layer=range(1, 3)
)


def test_parameters_in_the_lectures_order():
    """The norms draw nothing, so a seed gives the matrices of the residual model."""
    models = (seeded(kind, 65, 8, 32, 4, 3) for kind in (LayerNormModel, ResidualModel))
    ours, theirs = ([p for p in model.parameters() if p.dim() == 2] for model in models)
    assert len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))


STATISTICS = """x.mean(dim=-1, keepdim=True)
        var = x.var(dim=-1, keepdim=True, unbiased=False)"""
VARIANCE, ROOT = "x.var(dim=-1, keepdim=True, unbiased=False)", "/ torch.sqrt(var + self.eps)"
FIRST, SECOND = "x = x + self.sa(self.ln1(x))", "return x + self.ffwd(self.ln2(x))"
PAIR = "nn.LayerNorm(n_embd, bias=bias), nn.LayerNorm(n_embd, bias=bias)"


def over(dims):
    return STATISTICS.replace("dim=-1", f"dim={dims}")


# The models take torch's norm, so a fault in the norm written by hand cannot show in them.
norms.faults = [
    ("over the batch", STATISTICS, over("0"), equals_torch),
    ("over time", STATISTICS, over("-2"), equals_torch),
    ("over time and channels", STATISTICS, over("(-2, -1)"), equals_torch),
    ("over the whole batch", STATISTICS, over("tuple(range(x.dim()))"), equals_torch),
    ("unbiased variance", VARIANCE, "x.var(dim=-1, keepdim=True)", equals_torch),
    ("mean square for variance", VARIANCE, "x.square().mean(dim=-1, keepdim=True)", equals_torch),
    ("eps outside the root", ROOT, "/ (torch.sqrt(var) + self.eps)", equals_torch),
    ("eps forgotten", ROOT, "/ torch.sqrt(var)", equals_torch),
    ("half of eps", "1e-5", "5e-6", has_torchs_eps),
    ("root forgotten", ROOT, "/ (var + self.eps)", equals_torch),
    ("mean not subtracted", "(x - mean)", "x", equals_torch),
    ("gain missing", "self.gamma * (x - mean)", "(x - mean)", equals_torch),
    ("shift missing", " + self.beta", "", equals_torch),
    ("statistics without gradient", "(x - mean)", "(x - mean.detach())", equals_torch),
    ("post-norm", f"{FIRST}\n        {SECOND}",
     "x = self.ln1(x + self.sa(x))\n        return self.ln2(x + self.ffwd(x))",
     (block_normalises_before_each_part, silent_block_leaves_the_pathway_untouched)),
    ("pathway normalised too", FIRST, "x = self.ln1(x)\n        x = x + self.sa(x)",
     silent_block_leaves_the_pathway_untouched),
    ("ln1 not used", FIRST, "x = x + self.sa(x)", block_normalises_before_each_part),
    ("ln2 not used", SECOND, "return x + self.ffwd(x)", block_normalises_before_each_part),
    ("ln1 used twice", SECOND, "return x + self.ffwd(self.ln1(x))", block_normalises_before_each_part),
    ("one norm for both", PAIR, "(nn.LayerNorm(n_embd),) * 2", model_has_norms_of_its_own),
    ("shifts always", PAIR, PAIR.replace(", bias=bias", ""), block_has_shifts_unless_told),
    ("second part hears the first's norm", SECOND, "return x + self.ffwd(self.sa(self.ln2(x)))",
     block_normalises_before_each_part),
    ("no residual", FIRST, "x = self.sa(self.ln1(x))", silent_block_leaves_the_pathway_untouched),
    ("final norm missing", ", nn.LayerNorm(n_embd))", ")", model_goes_through_its_blocks),
    ("final norm first", "*(make_block() for _ in range(n_layer)), nn.LayerNorm(n_embd)",
     "nn.LayerNorm(n_embd), *(make_block() for _ in range(n_layer))", model_goes_through_its_blocks),
]  # fmt: skip
test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(norms)
