"""Multi-head attention, chapter 07: what must hold for any sizes, and faults that would break it.

Each property is a function of an implementation: the module `multi_head`, or a copy of it with one place of
its source changed. The module passes them all; a planted fault fails exactly those that the table names.
"""

from types import ModuleType

import pytest
import torch
from faults import fault_tests
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lecture_lib import multi_head
from lecture_lib.multi_head import MultiHeadAttention, MultiHeadModel
from lecture_lib.self_attention import Head, attention, causal_mask

DOUBLE = torch.float64


def draw(*shape: int, seed: int = 1337) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def make(library: ModuleType, T: int, n_head: int, hs: int) -> nn.Module:
    """The module for n_head heads of hs channels, in double precision."""
    torch.manual_seed(1337)
    return library.MultiHeadAttention(n_head * hs, n_head, T).double()


def close(actual: torch.Tensor, expected: torch.Tensor, atol: float = 1e-10) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def stacked(multi: nn.Module, name: str) -> torch.Tensor:
    """One matrix of the heads' queries, keys or values, one head after the other: (C, C)."""
    return torch.cat([getattr(head, name).weight for head in multi.heads])


# ---------------------------------------------------------------- the properties, for B, T, n_head, hs


def equals_torch(library, B, T, n_head, hs):
    """nn.MultiheadAttention with the same matrices, and the identity for its output projection."""
    multi, x, C = make(library, T, n_head, hs), draw(B, T, n_head * hs), n_head * hs
    theirs = nn.MultiheadAttention(C, n_head, bias=False, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([stacked(multi, name) for name in ("query", "key", "value")]))
        theirs.out_proj.weight.copy_(torch.eye(C))
    close(multi(x), theirs(x, x, x, attn_mask=~causal_mask(T))[0])


def equals_one_product_cut_into_heads(library, B, T, n_head, hs):
    """One product for all heads, cut into heads by a view; its gradients come back to each head."""
    multi, x = make(library, T, n_head, hs), draw(B, T, n_head * hs)
    q, k, v = (
        (x @ stacked(multi, name).T).view(B, T, n_head, hs).transpose(1, 2)
        for name in ("query", "key", "value")
    )  # (B, n_head, T, hs)
    together = attention(q, k, v, causal_mask(T))[0].transpose(1, 2).flatten(2)
    out = multi(x)
    close(out, together)
    sums = (torch.linspace(-1, 1, out.numel()).view_as(out) * y for y in (out, together))
    ours, theirs = (torch.autograd.grad(each.sum(), list(multi.parameters())) for each in sums)
    assert len(ours) == 3 * n_head
    for one, other in zip(ours, theirs, strict=True):
        close(one, other)


def each_head_fills_its_own_channels(library, B, T, n_head, hs):
    multi, x = make(library, T, n_head, hs), draw(B, T, n_head * hs)
    out = multi(x)
    assert out.shape == (B, T, n_head * hs) and len(multi.heads) == n_head
    for i, head in enumerate(multi.heads):
        assert torch.equal(out[..., i * hs : (i + 1) * hs], head(x))


def is_causal(library, B, T, n_head, hs):
    """Outputs up to t stay the same, bit for bit, whatever the tokens after t are."""
    multi, x = make(library, T, n_head, hs), draw(B, T, n_head * hs)
    before = multi(x)
    for t in range(T):
        changed = x.clone()
        changed[:, t + 1 :] = 3 - 2 * changed[:, t + 1 :]
        assert torch.equal(multi(changed)[:, : t + 1], before[:, : t + 1]), f"changed after {t}"


def never_talks_across_the_batch(library, B, T, n_head, hs):
    multi, x = make(library, T, n_head, hs), draw(B, T, n_head * hs)
    for b in range(B):
        close(multi(x[b : b + 1]), multi(x)[b : b + 1])


def has_as_many_parameters_as_one_large_head(library, B, T, n_head, hs):
    multi, C = make(library, T, n_head, hs), n_head * hs
    assert sum(p.numel() for p in multi.parameters()) == 3 * C * C
    assert all(head.key.weight.shape == (hs, C) for head in multi.heads)


def heads_differ(library, B, T, n_head, hs):
    """No two heads share or repeat a matrix, and the output of no head repeats another's."""
    multi, x = make(library, T, n_head, hs), draw(B, T, n_head * hs)
    outs = multi(x).split(hs, dim=-1)
    for i in range(n_head):
        for j in range(i):
            one, other = multi.heads[i], multi.heads[j]
            assert (one.query.weight != other.query.weight).any() and (outs[i] != outs[j]).any()


def all_learn(library, B, T, n_head, hs):
    """The optimizer would be given every head's matrices, and each value matrix gets a gradient."""
    multi, x = make(library, T, n_head, hs), draw(B, T, n_head * hs)
    multi(x).square().sum().backward()
    given = {id(p) for p in multi.parameters()}
    for head in multi.heads:
        assert {id(p) for p in head.parameters()} <= given
        gradient = head.value.weight.grad
        assert gradient is not None and gradient.abs().sum() > 0


def builds_the_heads_it_is_told(library, B, T, n_head, hs):
    """`make_head` is called n_head times with (n_embd, head_size, block_size), and its heads are used."""
    calls = []

    def make_head(*sizes):
        calls.append(sizes)
        return Head(*sizes[:3], causal=False)

    multi = library.MultiHeadAttention(n_head * hs, n_head, T, make_head).double()
    assert calls == [(n_head * hs, hs, T)] * n_head
    x = draw(B, T, n_head * hs)
    changed = x.clone()
    changed[:, -1] += 1
    assert T == 1 or (multi(changed)[:, 0] != multi(x)[:, 0]).any()  # not causal, as they were made


def model_is_that_body_in_the_frame(library, B, T, n_head, hs):
    """Embeddings, the attention, the head of logits; parameters in the lecture's order; causal throughout."""
    C = n_head * hs
    torch.manual_seed(1337)
    model = library.MultiHeadModel(11, T, C, n_head).double()
    torch.manual_seed(1337)
    tables, multi = (nn.Embedding(11, C), nn.Embedding(T, C)), library.MultiHeadAttention(C, n_head, T)
    lm_head = nn.Linear(C, 11).double()
    idx = torch.arange(B * T).view(B, T) % 11
    x = tables[0].double()(idx) + tables[1].double()(torch.arange(T))
    assert torch.equal(model(idx)[0], lm_head(multi.double()(x)))
    changed = idx.clone()
    changed[:, -1] = 10
    assert torch.equal(model(changed)[0][:, :-1], model(idx)[0][:, :-1])
    assert model.generate(idx, 3).shape == (B, T + 3)


PROPERTIES = [
    equals_torch,
    equals_one_product_cut_into_heads,
    each_head_fills_its_own_channels,
    is_causal,
    never_talks_across_the_batch,
    has_as_many_parameters_as_one_large_head,
    heads_differ,
    all_learn,
    builds_the_heads_it_is_told,
    model_is_that_body_in_the_frame,
]

# ---------------------------------------------------------------- what is right passes


@settings(deadline=None, max_examples=10)
@given(B=st.integers(1, 3), T=st.integers(1, 6), n_head=st.integers(1, 4), hs=st.integers(1, 4))
def test_properties(B, T, n_head, hs):
    for holds in PROPERTIES:
        holds(multi_head, B, T, n_head, hs)


def test_one_head_is_the_head():
    multi, x = make(multi_head, 5, 1, 6), draw(2, 5, 6)
    torch.manual_seed(1337)
    assert torch.equal(multi(x), Head(6, 6, 5).double()(x))


@pytest.mark.parametrize("n_head", [1, 2, 4, 8, 16, 32])
def test_the_lectures_count_of_parameters(n_head):
    assert sum(p.numel() for p in MultiHeadModel(65, 8, 32, n_head).parameters()) == 7_553


def test_several_heads_look_in_more_ways_than_one():
    """The rank of what the last output takes from each token, its weights held fixed: one for each head."""
    multi, x = make(multi_head, 6, 4, 2), draw(1, 6, 8)
    parts = [head.attend(x)[1][0, -1][:, None, None] * head.value.weight.T for head in multi.heads]
    assert torch.linalg.matrix_rank(torch.cat(parts, dim=-1).flatten(1)) == 4
    assert torch.linalg.matrix_rank(parts[0].flatten(1)) == 1


# ---------------------------------------------------------------- what is wrong is refused


@pytest.mark.parametrize(("n_embd", "n_head"), [(30, 4), (32, 5), (32, 0), (32, -4), (4, 8)])
def test_heads_that_cannot_be_cut(n_embd, n_head):
    message = f"n_embd is {n_embd}, n_head is {n_head}; expected n_head to divide n_embd"
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention(n_embd, n_head, 8)
    with pytest.raises(ValueError, match=message):
        MultiHeadModel(65, 8, n_embd, n_head)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 9, 8), "x has 9 tokens a row; expected at most block_size = 8"),
        ((2, 8, 4), r"x has shape \(2, 8, 4\); expected \(B, T, n_embd\) with n_embd = 8"),
    ],
)
def test_inputs_that_do_not_fit(shape, message):
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention(8, 2, 8)(torch.zeros(shape))


# ---------------------------------------------------------------- planted faults are caught

TORCH, PRODUCT, CHANNELS, CAUSAL, BATCH, COUNT, DIFFER, LEARN, TOLD, FRAME = PROPERTIES
CAT = "torch.cat([head(x) for head in self.heads], dim=-1)"
HEADS = "nn.ModuleList(make_head(n_embd, head_size, block_size) for _ in range(n_head))"
EACH = "make_head(n_embd, head_size, block_size)"

# the fault, its place in the source, what it becomes, and all properties that must notice
FAULTS = [
    ("concatenated over time", CAT, CAT.replace("-1", "1"), {TORCH, PRODUCT, CHANNELS, DIFFER, FRAME}),
    ("concatenated over the batch", CAT, CAT.replace("-1", "0"),
     {TORCH, PRODUCT, CHANNELS, BATCH, DIFFER, FRAME}),
    ("channels interleaved", CAT, "torch.stack([head(x) for head in self.heads], dim=-1).flatten(-2)",
     {TORCH, PRODUCT, CHANNELS}),
    ("last head first", CAT, CAT.replace("self.heads]", "self.heads[::-1]]"),
     {TORCH, PRODUCT, CHANNELS}),
    ("averaged, not concatenated", CAT, "sum(head(x) for head in self.heads) / len(self.heads)",
     {TORCH, PRODUCT, CHANNELS, DIFFER, FRAME}),
    ("all the first head's output", CAT, CAT.replace("head(x) for", "self.heads[0](x) for"),
     {TORCH, PRODUCT, CHANNELS, DIFFER, LEARN}),
    ("one head, n_head times", HEADS, f"nn.ModuleList([{EACH}] * n_head)",
     {PRODUCT, COUNT, DIFFER, TOLD}),
    ("one head not trained", CAT,
     CAT.replace("self.heads]", "self.heads[:-1]] + [self.heads[-1](x).detach()]"),
     {PRODUCT, LEARN}),
    ("heads in a plain list", HEADS, HEADS.replace("nn.ModuleList(", "list("), set(PROPERTIES)),
    ("every head as wide as the embedding", "n_embd // n_head", "n_embd",
     {TORCH, PRODUCT, CHANNELS, COUNT, TOLD, FRAME}),
    ("heads' size and number swapped", "n_embd // n_head", "n_head",
     {TORCH, PRODUCT, CHANNELS, COUNT, TOLD, FRAME}),
    ("a head too few", "range(n_head)", "range(n_head - 1)",
     {TORCH, PRODUCT, CHANNELS, COUNT, DIFFER, TOLD, FRAME}),
    ("heads that see the future", HEADS, HEADS.replace("block_size)", "block_size, False)"),
     {TORCH, PRODUCT, CAUSAL, TOLD, FRAME}),
    ("always a plain head", HEADS, HEADS.replace("make_head", "Head"), {TOLD}),
    ("shorter context", HEADS, HEADS.replace("block_size)", "block_size - 1)"),
     {TORCH, PRODUCT, CHANNELS, CAUSAL, BATCH, DIFFER, LEARN, TOLD, FRAME}),
    ("texts of a batch mixed", CAT, CAT.replace("head(x)", "head(x + x.mean(0))"),
     {TORCH, PRODUCT, CHANNELS, BATCH}),
    ("each head its own channels alone", CAT,
     "torch.cat([head(x * (torch.arange(x.shape[-1]) // (x.shape[-1] // len(self.heads)) == i))"
     " for i, head in enumerate(self.heads)], dim=-1)", {TORCH, PRODUCT, CHANNELS}),
    ("something more in the body", "return MultiHeadAttention(n_embd, n_head, block_size)",
     "return nn.Sequential(nn.LayerNorm(n_embd), MultiHeadAttention(n_embd, n_head, block_size))",
     {FRAME}),
]  # fmt: skip


test_a_planted_fault_is_caught, test_every_property_catches_a_fault = fault_tests(
    {multi_head: (PROPERTIES, FAULTS)}, B=2, T=4, n_head=3, hs=2
)
