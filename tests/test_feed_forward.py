"""Feed-forward, chapter 08."""

import torch
from kit import Suite, assert_causal, close, count, draw, seeded, suite_tests
from torch import nn
from torch.nn import functional as F

from lecture_lib import feed_forward
from lecture_lib.multi_head import MultiHeadAttention

thinking = Suite(feed_forward, B=2, T=4, n_head=2, hs=3)


def make_layer(library, C):
    return seeded(library.FeedForward, C).double()


def make_model(library, T, n_head, hs):
    return seeded(library.FeedForwardModel, 11, T, n_head * hs, n_head)


def thought(layer, x):
    """A linear layer and a ReLU with the layer's weights, worked out with torch alone."""
    return F.linear(x, *layer.parameters()).clamp(min=0)


@thinking.holds
def thinks_as_by_hand(library, B, T, n_head, hs):
    layer, x = make_layer(library, n_head * hs), draw(B, T, n_head * hs)
    close(layer(x), thought(layer, x))


@thinking.holds
def each_token_thinks_by_itself(library, B, T, n_head, hs):
    """A token's output is the one that it has alone."""
    layer, x = make_layer(library, n_head * hs), draw(B, T, n_head * hs)
    for b in range(B):
        for t in range(T):
            close(layer(x)[b, t], layer(x[b, t][None, None])[0, 0])


@thinking.holds
def thinks_in_one_square_layer(library, n_head, hs):
    C = n_head * hs
    assert count(make_layer(library, C)) == C * C + C


@thinking.holds
def bends(library, B, T, n_head, hs):
    """Not linear, not even up to a constant: f(x) + f(-x) differs from 2 f(0)."""
    layer, x = make_layer(library, n_head * hs), draw(B, T, n_head * hs)
    assert (layer(x) + layer(-x) - 2 * layer(0 * x)).abs().max() > 1e-3


@thinking.holds
def model_looks_then_thinks(library, B, T, n_head, hs):
    model, idx = make_model(library, T, n_head, hs).double(), torch.arange(B * T).view(B, T) % 11
    look, think = model.body
    assert type(look) is MultiHeadAttention and type(think) is library.FeedForward
    close(model(idx)[0], model.lm_head(thought(think, look(model.embed(idx)))))


@thinking.holds
def model_is_causal(library, B, T, n_head, hs):
    model = make_model(library, T, n_head, hs)
    assert_causal(lambda idx: model(idx)[0], torch.arange(B * T).view(B, T) % 11)


@thinking.holds
def model_is_drawn_in_order(library, T, n_head, hs):
    """Parameters are those of embeddings, heads, layer and logits, drawn one after the other."""
    C = n_head * hs
    parts = [(nn.Embedding, 11, C), (nn.Embedding, T, C), (MultiHeadAttention, C, n_head, T),
             (nn.Linear, C, C), (nn.Linear, C, 11)]  # fmt: skip
    expected = seeded(lambda: nn.ModuleList(make(*sizes) for make, *sizes in parts))
    actual = make_model(library, T, n_head, hs)
    assert count(actual) == count(expected)
    assert all(map(torch.equal, actual.parameters(), expected.parameters()))


test_at_any_size = thinking.at_any_size(B=range(1, 4), T=range(1, 6), n_head=range(1, 4), hs=range(4, 7))

LOOK, THINK = "MultiHeadAttention(n_embd, n_head, block_size)", "FeedForward(n_embd)"
thinking.faults = [
    ("ReLU missing", "nn.ReLU()", "nn.Identity()", bends),
    ("ReLU first", "nn.Linear(n_embd, n_embd), nn.ReLU()", "nn.ReLU(), nn.Linear(n_embd, n_embd)",
     thinks_as_by_hand),
    ("tanh for ReLU", "nn.ReLU()", "nn.Tanh()", thinks_as_by_hand),
    ("no bias", "n_embd, n_embd)", "n_embd, n_embd, bias=False)", thinks_in_one_square_layer),
    ("talks across the tokens", "self.net(x)", "self.net(x - x.mean(dim=-2, keepdim=True))",
     (each_token_thinks_by_itself, model_is_causal)),
    ("talks across the batch", "self.net(x)", "self.net(x + x.mean(dim=0))", each_token_thinks_by_itself),
    ("thinks before it looks", f"{LOOK}, {THINK}", f"{THINK}, {LOOK}",
     (model_looks_then_thinks, model_is_drawn_in_order)),
    ("does not think", f", {THINK}", ", nn.Identity()", model_looks_then_thinks),
    ("adds already", "self.net(x)", "x + self.net(x)", thinks_as_by_hand),
]  # fmt: skip
test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(thinking)
