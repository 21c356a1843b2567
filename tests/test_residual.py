"""Residual blocks, chapter 09."""

import torch
from kit import Suite, close, draw, seeded, suite_tests
from torch import nn
from torch.nn import functional as F

from lecture_lib import residual

VOCAB = 11
blocks = Suite(residual, B=2, T=4, n_head=2, hs=3, n_layer=2)


def make_attention(library, T, n_head, hs):
    return seeded(library.ProjectedAttention, n_head * hs, n_head, T).double()


def make_thinking(library, C, *choices):
    return seeded(library.WideFeedForward, C, *choices).double()


def find(module, kind):
    return [part for part in module.modules() if isinstance(part, kind)]


@blocks.holds
def attention_equals_torch(library, B, T, n_head, hs):
    """`nn.MultiheadAttention` with the same matrices, output projection and its bias included."""
    C = n_head * hs
    sa, x = make_attention(library, T, n_head, hs), draw(B, T, C)
    theirs = nn.MultiheadAttention(C, n_head, batch_first=True).double()
    stacked = [getattr(h, name).weight for name in ("query", "key", "value") for h in sa.heads]
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat(stacked))  # 3 n_head times (hs, C) -> (3C, C)
        theirs.in_proj_bias.zero_()
    theirs.out_proj.load_state_dict(sa.proj.state_dict())
    forbidden = ~torch.ones(T, T, dtype=torch.bool).tril()
    close(sa(x), theirs(x, x, x, attn_mask=forbidden)[0])


@blocks.holds
def thinks_as_by_hand(library, B, T, n_head, hs):
    """A ReLU between two layers; or what else it's told, and no biases."""
    C, x = n_head * hs, draw(B, T, n_head * hs)
    for choices, bend in (((), F.relu), ((nn.Tanh, False), torch.tanh)):
        ffwd = make_thinking(library, C, *choices)
        up, down = find(ffwd, nn.Linear)
        close(ffwd(x), F.linear(bend(F.linear(x, up.weight, up.bias)), down.weight, down.bias))
        assert (up.bias is None) == (down.bias is None) == (bend is torch.tanh)


@blocks.holds
def thinks_four_times_as_wide(library, n_head, hs):
    C = n_head * hs
    shapes = [tuple(layer.weight.shape) for layer in find(make_thinking(library, C), nn.Linear)]
    assert shapes == [(4 * C, C), (C, 4 * C)]


@blocks.holds
def block_adds_whatever_it_is_given(library, B, T, n_head, hs):
    """For any two maps: with sa(x) = 3x and ffwd(x) = x + 1, 4x and then 8x + 1."""
    triple, plus_one = nn.Identity(), nn.Identity()
    triple.forward, plus_one.forward = lambda x: 3 * x, lambda x: x + 1
    x = draw(B, T, n_head * hs)
    close(library.ResidualBlock(triple, plus_one)(x), 8 * x + 1)


@blocks.holds
def silent_block_passes_everything_on(library, B, T, n_head, hs):
    """With the last layer of both halves at 0: every token, and every gradient, bit for bit."""
    sa, ffwd = make_attention(library, T, n_head, hs), make_thinking(library, n_head * hs)
    for parameter in (*sa.proj.parameters(), *find(ffwd, nn.Linear)[-1].parameters()):
        nn.init.zeros_(parameter)
    x, above = draw(B, T, n_head * hs).requires_grad_(), draw(B, T, n_head * hs, seed=1)
    out = library.ResidualBlock(sa, ffwd)(x)
    assert torch.equal(out, x) and torch.equal(torch.autograd.grad(out, x, above)[0], above)


@blocks.holds
def gradient_is_one_plus_the_halves(library, B, T, n_head, hs):
    """What comes from above goes straight down, plus what went through each half."""
    sa, ffwd = make_attention(library, T, n_head, hs), make_thinking(library, n_head * hs)
    x, above = draw(B, T, n_head * hs).requires_grad_(), draw(B, T, n_head * hs, seed=1)
    (at_x,) = torch.autograd.grad(library.ResidualBlock(sa, ffwd)(x), x, above)
    y = (x + sa(x)).detach().requires_grad_()
    at_y = above + torch.autograd.grad(ffwd(y), y, above)[0]
    close(at_x, at_y + torch.autograd.grad(sa(x), x, at_y)[0])


@blocks.holds
def model_goes_through_its_blocks(library, B, T, n_head, hs, n_layer):
    model = seeded(library.ResidualModel, VOCAB, T, n_head * hs, n_head, n_layer).double()
    idx = torch.arange(B * T).view(B, T) % VOCAB
    halves = find(model, library.ProjectedAttention), find(model, library.WideFeedForward)
    assert [len(half) for half in halves] == [n_layer, n_layer]
    x = model.embed(idx)
    for sa, ffwd in zip(*halves, strict=True):
        x = x + sa(x)
        x = x + ffwd(x)
    close(model(idx)[0], model.lm_head(x))


@blocks.holds
def model_is_drawn_in_the_lectures_order(library, T, n_head, hs, n_layer):
    """Embeddings, blocks that share nothing (heads, projection, thinking), logits."""
    C = n_head * hs
    block = [(nn.Linear, C, hs, False)] * 3 * n_head + [(nn.Linear, C, C)]
    block += [(nn.Linear, C, 4 * C), (nn.Linear, 4 * C, C)]
    parts = [(nn.Embedding, VOCAB, C), (nn.Embedding, T, C), *block * n_layer, (nn.Linear, C, VOCAB)]
    layers = seeded(lambda: [kind(*sizes) for kind, *sizes in parts])
    expected = [parameter for layer in layers for parameter in layer.parameters()]
    actual = list(seeded(library.ResidualModel, VOCAB, T, C, n_head, n_layer).parameters())
    assert len(actual) == len(expected) and all(map(torch.equal, actual, expected))


test_at_any_size = blocks.at_any_size(
    B=range(1, 4), T=range(1, 5), n_head=range(1, 4), hs=range(1, 5), n_layer=range(1, 4)
)


SA, FFWD = "x = x + self.sa(x)", "return x + self.ffwd(x)"
HALVES = "ProjectedAttention(n_embd, n_head, block_size), WideFeedForward(n_embd)"
LAYERS = "nn.Linear(n_embd, 4 * n_embd, bias), nn.Linear(4 * n_embd, n_embd, bias)"
TOLD = "super().__init__(n_embd, n_head, block_size, make_head)"
blocks.faults = [
    ("no addition in sa", SA, "x = self.sa(x)", block_adds_whatever_it_is_given),
    ("no addition in ffwd", FFWD, "return self.ffwd(x)", block_adds_whatever_it_is_given),
    ("added twice in sa", SA, "x = 2 * x + self.sa(x)", block_adds_whatever_it_is_given),
    ("added twice in ffwd", FFWD, "return 2 * x + self.ffwd(x)", block_adds_whatever_it_is_given),
    ("highway closed to gradients", SA, "x = x.detach() + self.sa(x)", silent_block_passes_everything_on),
    ("half closed to gradients", "x + self.sa(x)", "x + self.sa(x.detach())",
     gradient_is_one_plus_the_halves),
    ("halves in parallel", f"{SA}\n        {FFWD}", "return x + self.sa(x) + self.ffwd(x)",
     block_adds_whatever_it_is_given),
    ("thinks before it looks", "self.sa, self.ffwd = sa, ffwd", "self.sa, self.ffwd = ffwd, sa",
     block_adds_whatever_it_is_given),
    ("ffwd for both halves", "x + self.sa(x)", "x + self.ffwd(x)", block_adds_whatever_it_is_given),
    ("no projection", "self.proj(super().forward(x))", "super().forward(x)", attention_equals_torch),
    ("projection before the heads", "self.proj(super().forward(x))", "super().forward(self.proj(x))",
     attention_equals_torch),
    ("projection without bias", "nn.Linear(n_embd, n_embd)", "nn.Linear(n_embd, n_embd, bias=False)",
     model_is_drawn_in_the_lectures_order),
    ("hidden layer of 2", LAYERS, LAYERS.replace("4", "2"), thinks_four_times_as_wide),
    ("hidden layer of 1", LAYERS, LAYERS.replace("4 * ", ""), thinks_four_times_as_wide),
    ("ReLU missing", "activation(),", "nn.Identity(),", thinks_as_by_hand),
    ("always ReLU", "activation(),", "nn.ReLU(),", thinks_as_by_hand),
    ("always a bias", LAYERS, LAYERS.replace(", bias)", ")"), thinks_as_by_hand),
    ("ReLU at the end too", "activation(), narrow", "activation(), narrow, activation()", thinks_as_by_hand),
    ("ffwd talks across the tokens", "self.net(x)", "self.net(x - x.mean(dim=-2, keepdim=True))",
     thinks_as_by_hand),
    ("ffwd talks across the batch", "self.net(x)", "self.net(x + x.mean(dim=0))", thinks_as_by_hand),
    ("one block, n_layer times", "*(make_block() for _ in range(n_layer))", "*[make_block()] * n_layer",
     model_is_drawn_in_the_lectures_order),
    ("a block too few", "range(n_layer)", "range(n_layer - 1)", model_goes_through_its_blocks),
    ("blocks without their attention", f"ResidualBlock({HALVES})",
     "ResidualBlock(nn.Identity(), WideFeedForward(n_embd))", model_goes_through_its_blocks),
    ("ffwd drawn before sa", f"return ResidualBlock({HALVES})",
     "ffwd = WideFeedForward(n_embd); return ResidualBlock("
     "ProjectedAttention(n_embd, n_head, block_size), ffwd)", model_is_drawn_in_the_lectures_order),
    ("heads of an encoder", TOLD, f"{TOLD}; [setattr(head, 'causal', False) for head in self.heads]",
     attention_equals_torch),
]  # fmt: skip
test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(blocks)


def test_other_heads_can_be_given():
    """`make_head` reaches the heads, as the chapter on dropout and the encoder need it."""
    blind = residual.ProjectedAttention(6, 2, 4, make_head=lambda C, hs, T: nn.Linear(C, hs))
    assert [type(head) for head in blind.heads] == [nn.Linear, nn.Linear]
    assert blind(torch.zeros(1, 4, 6)).shape == (1, 4, 6)
