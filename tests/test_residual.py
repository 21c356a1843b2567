"""Feed-forward and residual blocks, chapters 08 and 09: what must hold, and faults that would break it.

Each property is a function of an implementation: the module of the chapter, or a copy of it with one place of
its source changed. The module passes them all; a planted fault fails exactly those that the table names.
"""

from types import ModuleType

import pytest
import torch
from faults import failed, planted
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lecture_lib import feed_forward, residual
from lecture_lib.feed_forward import FeedForwardModel
from lecture_lib.residual import ResidualModel

DOUBLE = torch.float64
VOCAB = 11


def draw(*shape: int, seed: int = 1337) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def close(actual: torch.Tensor, expected: torch.Tensor, atol: float = 1e-10) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def made(make, *sizes: int) -> nn.Module:
    """A module under the lecture's seed, in double precision."""
    torch.manual_seed(1337)
    return make(*sizes).double()


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def find(module: nn.Module, kind: type) -> list:
    return [part for part in module.modules() if isinstance(part, kind)]


# ---------------------------------------------------------------- the same, worked out with torch alone


def looked(attention: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What the heads of `attention` collect, one after the other: (B, T, C) -> (B, T, C)."""
    heads = [(head.query(x), head.key(x), head.value(x)) for head in attention.heads]  # (B, T, hs) each
    return torch.cat([F.scaled_dot_product_attention(*qkv, is_causal=True) for qkv in heads], dim=-1)


def projected(attention: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.linear(looked(attention, x), attention.proj.weight, attention.proj.bias)


def thought(ffwd: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Linear layers with a ReLU behind the first: (B, T, C) -> (B, T, C)."""
    first, *rest = find(ffwd, nn.Linear)
    x = F.linear(x, first.weight, first.bias).clamp(min=0)
    for layer in rest:
        x = F.linear(x, layer.weight, layer.bias)
    return x


def silence(layer: nn.Linear) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


# ---------------------------------------------------------------- what several of the properties ask


def each_token_by_itself(layer: nn.Module, x: torch.Tensor) -> None:
    """The derivative of a token's output by any other token's input is exactly 0."""
    x.requires_grad_()
    B, T, C = x.shape
    for b in range(B):
        for t in range(T):
            (gradient,) = torch.autograd.grad((layer(x)[b, t] * torch.arange(1, C + 1)).sum(), x)
            gradient[b, t] = 0
            assert (gradient == 0).all()


def model_is_causal(model: nn.Module, T: int) -> None:
    """Logits before t stay the same, bit for bit, whatever comes from t on."""
    idx = torch.arange(T)[None]
    for t in range(T):
        changed = idx.clone()
        changed[:, t:] = VOCAB - 1
        assert torch.equal(model(changed)[0][:, :t], model(idx)[0][:, :t])


def in_the_order(model: nn.Module, layers: list[nn.Module]) -> None:
    """The parameters of `model` are those of `layers`, drawn one after the other under the same seed."""
    expected = [parameter for layer in layers for parameter in layer.parameters()]
    actual = list(model.parameters())
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        assert torch.equal(ours, theirs)


def drawn_tables(T: int, C: int) -> list[nn.Module]:
    torch.manual_seed(1337)
    return [nn.Embedding(VOCAB, C), nn.Embedding(T, C)]


def drawn_heads(n_head: int, hs: int) -> list[nn.Module]:
    """Key, query and value of each head."""
    return [nn.Linear(n_head * hs, hs, bias=False) for _ in range(3 * n_head)]


# ---------------------------------------------------------------- chapter 08, for B, T, n_head, hs


def make_feed_forward(library: ModuleType, C: int) -> nn.Module:
    return made(library.FeedForward, C)


def make_feed_forward_model(library: ModuleType, T: int, n_head: int, hs: int) -> nn.Module:
    return made(library.FeedForwardModel, VOCAB, T, n_head * hs, n_head)


def thinks_as_by_hand(library, B, T, n_head, hs):
    layer, x = make_feed_forward(library, n_head * hs), draw(B, T, n_head * hs)
    close(layer(x), thought(layer, x))


def thinks_alone(library, B, T, n_head, hs):
    C = n_head * hs
    each_token_by_itself(make_feed_forward(library, C), draw(B, T, C))


def thinks_in_one_square_layer(library, B, T, n_head, hs):
    C = n_head * hs
    assert count(make_feed_forward(library, C)) == C * C + C


def bends(library, B, T, n_head, hs):
    """Not linear, not even up to a constant: f(x) + f(-x) differs from 2 f(0)."""
    C = n_head * hs
    layer, x = make_feed_forward(library, C), draw(B, T, C)
    assert (layer(x) + layer(-x) - 2 * layer(0 * x)).abs().max() > 1e-3


def model_looks_then_thinks(library, B, T, n_head, hs):
    model = make_feed_forward_model(library, T, n_head, hs)
    idx = torch.arange(B * T).view(B, T) % VOCAB
    (attention,) = find(model, feed_forward.MultiHeadAttention)
    layers = find(model, library.FeedForward)
    assert len(layers) == 1
    close(model(idx)[0], model.lm_head(thought(layers[0], looked(attention, model.embed(idx)))))


def thinking_model_is_causal(library, B, T, n_head, hs):
    model_is_causal(make_feed_forward_model(library, T, n_head, hs), T)


def thinking_model_is_drawn_in_order(library, B, T, n_head, hs):
    C = n_head * hs
    torch.manual_seed(1337)
    model = library.FeedForwardModel(VOCAB, T, C, n_head)
    layers = [*drawn_tables(T, C), *drawn_heads(n_head, hs), nn.Linear(C, C), nn.Linear(C, VOCAB)]
    in_the_order(model, layers)


THINKING = [
    thinks_as_by_hand,
    thinks_alone,
    thinks_in_one_square_layer,
    bends,
    model_looks_then_thinks,
    thinking_model_is_causal,
    thinking_model_is_drawn_in_order,
]

# ---------------------------------------------------------------- chapter 09, for B, T, n_head, hs, n_layer


def make_halves(library: ModuleType, T: int, n_head: int, hs: int) -> tuple[nn.Module, nn.Module]:
    C = n_head * hs
    return made(library.ProjectedAttention, C, n_head, T), made(library.WideFeedForward, C)


def make_residual_model(library: ModuleType, T: int, n_head: int, hs: int, n_layer: int) -> nn.Module:
    return made(library.ResidualModel, VOCAB, T, n_head * hs, n_head, n_layer)


def attention_equals_torch(library, B, T, n_head, hs, n_layer):
    """`nn.MultiheadAttention` with the same matrices, output projection and its bias included."""
    C = n_head * hs
    sa, x = make_halves(library, T, n_head, hs)[0], draw(B, T, C)
    theirs = nn.MultiheadAttention(C, n_head, bias=True, batch_first=True).double()
    stacked = [getattr(h, name).weight for name in ("query", "key", "value") for h in sa.heads]
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat(stacked))  # 3 n_head times (hs, C) -> (3C, C)
        theirs.in_proj_bias.zero_()
    theirs.out_proj.load_state_dict(sa.proj.state_dict())
    forbidden = ~torch.ones(T, T, dtype=torch.bool).tril()
    close(sa(x), theirs(x, x, x, attn_mask=forbidden)[0])


def wide_layer_as_by_hand(library, B, T, n_head, hs, n_layer):
    layer, x = make_halves(library, T, n_head, hs)[1], draw(B, T, n_head * hs)
    close(layer(x), thought(layer, x))


def wide_layer_as_it_is_told(library, B, T, n_head, hs, n_layer):
    """Another activation in between, and layers without bias."""
    C = n_head * hs
    layer, x = made(library.WideFeedForward, C, nn.Tanh, False), draw(B, T, C)
    first, last = find(layer, nn.Linear)
    close(layer(x), F.linear(F.linear(x, first.weight).tanh(), last.weight))
    assert first.bias is None and last.bias is None


def wide_layer_thinks_alone(library, B, T, n_head, hs, n_layer):
    each_token_by_itself(make_halves(library, T, n_head, hs)[1], draw(B, T, n_head * hs))


def wide_layer_is_four_times_as_wide(library, B, T, n_head, hs, n_layer):
    C = n_head * hs
    layer = make_halves(library, T, n_head, hs)[1]
    assert [tuple(linear.weight.shape) for linear in find(layer, nn.Linear)] == [(4 * C, C), (C, 4 * C)]
    assert count(layer) == 8 * C**2 + 5 * C


def block_adds_both_halves(library, B, T, n_head, hs, n_layer):
    """First attention, then thinking about its result, each added, with halves worked out by torch alone."""
    sa, ffwd = make_halves(library, T, n_head, hs)
    x = draw(B, T, n_head * hs)
    y = x + projected(sa, x)
    close(library.ResidualBlock(sa, ffwd)(x), y + thought(ffwd, y))


def block_adds_whatever_it_is_given(library, B, T, n_head, hs, n_layer):
    """For any two maps: with sa(x) = 3x and ffwd(x) = x + 1, 4x and then 8x + 1."""

    class Plus(nn.Module):
        def forward(self, x):
            return x + 1

    class Times(nn.Module):
        def forward(self, x):
            return 3 * x

    x = draw(B, T, n_head * hs)
    close(library.ResidualBlock(Times(), Plus())(x), 8 * x + 1)


def silent_block_is_the_identity(library, B, T, n_head, hs, n_layer):
    """With the last layer of both halves at 0, every token passes as it is, bit for bit."""
    sa, ffwd = make_halves(library, T, n_head, hs)
    silence(sa.proj)
    silence(find(ffwd, nn.Linear)[-1])
    x = draw(B, T, n_head * hs)
    assert torch.equal(library.ResidualBlock(sa, ffwd)(x), x)


def gradient_passes_a_silent_block_unchanged(library, B, T, n_head, hs, n_layer):
    sa, ffwd = make_halves(library, T, n_head, hs)
    silence(sa.proj)
    silence(find(ffwd, nn.Linear)[-1])
    x, above = draw(B, T, n_head * hs).requires_grad_(), draw(B, T, n_head * hs, seed=1)
    (at_x,) = torch.autograd.grad(library.ResidualBlock(sa, ffwd)(x), x, above)
    assert torch.equal(at_x, above)


def gradient_is_one_plus_the_halves(library, B, T, n_head, hs, n_layer):
    """What comes from above goes straight down, plus what went through each half."""
    sa, ffwd = make_halves(library, T, n_head, hs)
    x, above = draw(B, T, n_head * hs).requires_grad_(), draw(B, T, n_head * hs, seed=1)
    (at_x,) = torch.autograd.grad(library.ResidualBlock(sa, ffwd)(x), x, above)
    y = (x + sa(x)).detach().requires_grad_()
    at_y = above + torch.autograd.grad(ffwd(y), y, above)[0]
    close(at_x, at_y + torch.autograd.grad(sa(x), x, at_y)[0])


def model_goes_through_its_blocks(library, B, T, n_head, hs, n_layer):
    model = make_residual_model(library, T, n_head, hs, n_layer)
    idx = torch.arange(B * T).view(B, T) % VOCAB
    halves = find(model, library.ProjectedAttention), find(model, library.WideFeedForward)
    assert len(halves[0]) == len(halves[1]) == n_layer
    x = model.embed(idx)
    for sa, ffwd in zip(*halves, strict=True):
        x = x + projected(sa, x)
        x = x + thought(ffwd, x)
    close(model(idx)[0], model.lm_head(x))


def deep_model_is_causal(library, B, T, n_head, hs, n_layer):
    model_is_causal(make_residual_model(library, T, n_head, hs, n_layer), T)


def deep_model_has_blocks_of_its_own(library, B, T, n_head, hs, n_layer):
    """Parameters, each counted once: embeddings, n_layer blocks that share nothing, logits."""
    C = n_head * hs
    block = 4 * C**2 + C + 8 * C**2 + 5 * C
    model = make_residual_model(library, T, n_head, hs, n_layer)
    assert count(model) == (VOCAB + T) * C + n_layer * block + C * VOCAB + VOCAB


def deep_model_is_drawn_in_order(library, B, T, n_head, hs, n_layer):
    C = n_head * hs
    torch.manual_seed(1337)
    model = library.ResidualModel(VOCAB, T, C, n_head, n_layer)
    layers = drawn_tables(T, C)
    for _ in range(n_layer):
        layers += [*drawn_heads(n_head, hs), nn.Linear(C, C), nn.Linear(C, 4 * C), nn.Linear(4 * C, C)]
    in_the_order(model, [*layers, nn.Linear(C, VOCAB)])


DEEP = [
    attention_equals_torch,
    wide_layer_as_by_hand,
    wide_layer_as_it_is_told,
    wide_layer_thinks_alone,
    wide_layer_is_four_times_as_wide,
    block_adds_both_halves,
    block_adds_whatever_it_is_given,
    silent_block_is_the_identity,
    gradient_passes_a_silent_block_unchanged,
    gradient_is_one_plus_the_halves,
    model_goes_through_its_blocks,
    deep_model_is_causal,
    deep_model_has_blocks_of_its_own,
    deep_model_is_drawn_in_order,
]

# ---------------------------------------------------------------- what is right passes

SIZES = {"B": 2, "T": 4, "n_head": 2, "hs": 3}


@pytest.mark.parametrize("holds", THINKING, ids=lambda holds: holds.__name__)
def test_thinking(holds):
    holds(feed_forward, **SIZES)


@pytest.mark.parametrize("holds", DEEP, ids=lambda holds: holds.__name__)
def test_deep(holds):
    holds(residual, **SIZES, n_layer=2)


SMALL = st.integers(1, 3)


@settings(deadline=None, max_examples=10)
@given(B=SMALL, T=st.integers(1, 5), n_head=SMALL, hs=st.integers(4, 6))
def test_thinking_at_any_size(B, T, n_head, hs):
    for holds in THINKING:
        holds(feed_forward, B, T, n_head, hs)


@settings(deadline=None, max_examples=10)
@given(B=SMALL, T=st.integers(1, 4), n_head=SMALL, hs=st.integers(1, 4), n_layer=SMALL)
def test_deep_at_any_size(B, T, n_head, hs, n_layer):
    for holds in DEEP:
        holds(residual, B, T, n_head, hs, n_layer)


LECTURES = [
    pytest.param(FeedForwardModel, (4,), id="feed-forward"),
    pytest.param(ResidualModel, (4, 3), id="deep"),
]


def lectures_model(kind: type, more: tuple[int, ...]) -> nn.Module:
    """As large as in the lecture: 65 characters, 8 of context, 32 channels."""
    torch.manual_seed(1337)
    return kind(65, 8, 32, *more)


def test_parameters_at_the_lectures_sizes():
    assert count(lectures_model(FeedForwardModel, (4,))) == 8_609
    assert count(lectures_model(ResidualModel, (4, 3))) == 41_921


@pytest.mark.parametrize(("kind", "more"), LECTURES)
def test_every_parameter_gets_a_gradient(kind, more):
    model = lectures_model(kind, more)
    idx, targets = torch.randint(65, (2, 16, 8), generator=torch.Generator().manual_seed(1337))
    model(idx, targets)[1].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("kind", "more"), LECTURES)
def test_overfits_one_batch(kind, more):
    """Four rows, each of which begins with a token of its own: what follows is not left to chance."""
    model = lectures_model(kind, more)
    idx = torch.stack([torch.arange(i, i + 9) * (i + 3) % 65 for i in range(4)])  # (4, 9)
    assert len(set(idx[:, 0].tolist())) == 4
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    for _ in range(80):
        loss = model(idx[:, :-1], idx[:, 1:])[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


@pytest.mark.parametrize(("kind", "more"), LECTURES)
def test_generates_beyond_its_context(kind, more):
    idx = lectures_model(kind, more).generate(torch.zeros(2, 1, dtype=torch.long), max_new_tokens=20)
    assert idx.shape == (2, 21)


def test_heads_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(ValueError, match="n_embd is 32, n_head is 5; expected n_head to divide n_embd"):
        ResidualModel(65, 8, 32, 5, 3)


def test_other_heads_can_be_given():
    """`make_head` reaches the heads, as an encoder or the chapter on dropout needs it."""
    blind = residual.ProjectedAttention(6, 2, 4, make_head=lambda C, hs, T: nn.Linear(C, hs))
    assert [type(head) for head in blind.heads] == [nn.Linear, nn.Linear]
    assert blind(torch.zeros(1, 4, 6)).shape == (1, 4, 6)


# ---------------------------------------------------------------- planted faults are caught

HAND, ALONE, SQUARE, BENDS, THINK_MODEL, THINK_CAUSAL, THINK_ORDER = THINKING
(TORCH, WIDE_HAND, WIDE_TOLD, WIDE_ALONE, WIDE, BLOCK, ANY, SILENT, HIGHWAY, ONE_PLUS,
 MODEL, CAUSAL, COUNT, ORDER) = DEEP  # fmt: skip

# the fault, its place in the source, what it becomes, and all properties that must notice.
THINKING_FAULTS = [
    ("ReLU missing", "nn.ReLU()", "nn.Identity()", {HAND, BENDS, THINK_MODEL}),
    ("ReLU first", "nn.Linear(n_embd, n_embd), nn.ReLU()", "nn.ReLU(), nn.Linear(n_embd, n_embd)",
     {HAND, THINK_MODEL}),
    ("tanh for ReLU", "nn.ReLU()", "nn.Tanh()", {HAND, THINK_MODEL}),
    ("no bias", "nn.Linear(n_embd, n_embd)", "nn.Linear(n_embd, n_embd, bias=False)", {SQUARE, THINK_ORDER}),
    ("talks across the tokens", "self.net(x)", "self.net(x - x.mean(dim=-2, keepdim=True))",
     {HAND, ALONE, THINK_MODEL, THINK_CAUSAL}),
    ("talks across the batch", "self.net(x)", "self.net(x + x.mean(dim=0))", {HAND, ALONE, THINK_MODEL}),
    ("thinks before it looks", "MultiHeadAttention(n_embd, n_head, block_size), FeedForward(n_embd)",
     "FeedForward(n_embd), MultiHeadAttention(n_embd, n_head, block_size)", {THINK_MODEL, THINK_ORDER}),
    ("does not think", ", FeedForward(n_embd))", ")", {THINK_MODEL, THINK_ORDER}),
    ("adds already", "return self.net(x)", "return x + self.net(x)", {HAND, THINK_MODEL}),
]  # fmt: skip

SA, FFWD = "x = x + self.sa(x)", "return x + self.ffwd(x)"
HALVES = "ProjectedAttention(n_embd, n_head, block_size), WideFeedForward(n_embd)"
LAYERS = "nn.Linear(n_embd, 4 * n_embd, bias), nn.Linear(4 * n_embd, n_embd, bias)"
DEEP_FAULTS = [
    ("no addition in sa", SA, "x = self.sa(x)", {BLOCK, ANY, SILENT, HIGHWAY, ONE_PLUS, MODEL}),
    ("no addition in ffwd", FFWD, "return self.ffwd(x)", {BLOCK, ANY, SILENT, HIGHWAY, ONE_PLUS, MODEL}),
    ("added twice in sa", SA, "x = 2 * x + self.sa(x)", {BLOCK, ANY, SILENT, HIGHWAY, ONE_PLUS, MODEL}),
    ("added twice in ffwd", FFWD, "return 2 * x + self.ffwd(x)",
     {BLOCK, ANY, SILENT, HIGHWAY, ONE_PLUS, MODEL}),
    ("highway closed to gradients", SA, "x = x.detach() + self.sa(x)", {HIGHWAY, ONE_PLUS}),
    ("halves in parallel", f"{SA}  # (B, T, C) + (B, T, C)\n        {FFWD}",
     "return x + self.sa(x) + self.ffwd(x)", {BLOCK, ANY, ONE_PLUS, MODEL}),
    ("thinks before it looks", "self.sa, self.ffwd = sa, ffwd", "self.sa, self.ffwd = ffwd, sa",
     {BLOCK, ANY, ONE_PLUS, MODEL, ORDER}),
    ("ffwd for both halves", "x + self.sa(x)", "x + self.ffwd(x)", {BLOCK, ANY, ONE_PLUS, MODEL}),
    ("no projection", "self.proj(super().forward(x))", "super().forward(x)",
     {TORCH, BLOCK, SILENT, HIGHWAY, MODEL}),
    ("projection before the heads", "self.proj(super().forward(x))", "super().forward(self.proj(x))",
     {TORCH, BLOCK, MODEL}),
    ("projection without bias", "self.proj = nn.Linear(n_embd, n_embd)",
     "self.proj = nn.Linear(n_embd, n_embd, bias=False)", {TORCH, COUNT, ORDER}),
    ("hidden layer of 2", LAYERS, LAYERS.replace("4", "2"), {WIDE, COUNT, ORDER}),
    ("hidden layer of 1", LAYERS, LAYERS.replace("4 * ", ""), {WIDE, COUNT, ORDER}),
    ("ReLU missing", "activation(),", "nn.Identity(),", {WIDE_HAND, WIDE_TOLD, BLOCK, MODEL}),
    ("always ReLU", "activation(),", "nn.ReLU(),", {WIDE_TOLD}),
    ("always a bias", LAYERS, LAYERS.replace(", bias)", ")"), {WIDE_TOLD}),
    ("ReLU at the end too", "activation(), narrow", "activation(), narrow, activation()",
     {WIDE_HAND, WIDE_TOLD, BLOCK, MODEL}),
    ("ffwd talks across the tokens", "self.net(x)", "self.net(x - x.mean(dim=-2, keepdim=True))",
     {WIDE_HAND, WIDE_TOLD, WIDE_ALONE, BLOCK, MODEL, CAUSAL}),
    ("ffwd talks across the batch", "self.net(x)", "self.net(x + x.mean(dim=0))",
     {WIDE_HAND, WIDE_TOLD, WIDE_ALONE, BLOCK, MODEL}),
    ("one block, n_layer times", "*(make_block() for _ in range(n_layer))", "*[make_block()] * n_layer",
     {MODEL, COUNT, ORDER}),
    ("a block too few", "range(n_layer)", "range(n_layer - 1)", {MODEL, COUNT, ORDER}),
    ("blocks without their attention", f"ResidualBlock({HALVES})",
     "ResidualBlock(nn.Identity(), WideFeedForward(n_embd))", {MODEL, COUNT, ORDER}),
    ("ffwd drawn before sa", f"return ResidualBlock({HALVES})",
     "ffwd = WideFeedForward(n_embd); return ResidualBlock("
     "ProjectedAttention(n_embd, n_head, block_size), ffwd)", {ORDER}),
    ("heads of an encoder", "super().__init__(n_embd, n_head, block_size, make_head)",
     "super().__init__(n_embd, n_head, block_size, make_head); "
     "[setattr(head, 'causal', False) for head in self.heads]", {TORCH, BLOCK, MODEL, CAUSAL}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "noticed_by"), [pytest.param(*f[1:], id=f[0]) for f in THINKING_FAULTS]
)
def test_a_fault_planted_in_thinking_is_caught(old, new, noticed_by):
    assert failed(planted(feed_forward, old, new), THINKING, **SIZES) == noticed_by


@pytest.mark.parametrize(("old", "new", "noticed_by"), [pytest.param(*f[1:], id=f[0]) for f in DEEP_FAULTS])
def test_a_fault_planted_in_the_blocks_is_caught(old, new, noticed_by):
    assert failed(planted(residual, old, new), DEEP, **SIZES, n_layer=2) == noticed_by


def test_every_property_catches_a_fault():
    faults = THINKING_FAULTS + DEEP_FAULTS
    assert set().union(*(noticed_by for *_, noticed_by in faults)) == {*THINKING, *DEEP}
