"""Multi-head attention, chapter 07."""

import torch
from kit import Suite, assert_causal, assert_rows_apart, close, count, draw, refusals, seeded, suite_tests
from torch import nn

from lecture_lib import multi_head
from lecture_lib.multi_head import MultiHeadAttention, MultiHeadModel
from lecture_lib.self_attention import Head, attention, causal_mask

heads = Suite(multi_head, B=2, T=4, n_head=3, hs=2)


def make(library, T, n_head, hs):
    """The module for n_head heads of hs channels, in double precision."""
    return seeded(library.MultiHeadAttention, n_head * hs, n_head, T).double()


def stacked(multi, name):
    """One matrix of the heads' queries, keys or values, one head after the other: (C, C)."""
    return torch.cat([getattr(head, name).weight for head in multi.heads])


@heads.holds
def equals_torch(library, B, T, n_head, hs):
    """nn.MultiheadAttention with the same matrices, and the identity for its output projection."""
    multi, x, C = make(library, T, n_head, hs), draw(B, T, n_head * hs), n_head * hs
    theirs = nn.MultiheadAttention(C, n_head, bias=False, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([stacked(multi, name) for name in ("query", "key", "value")]))
        theirs.out_proj.weight.copy_(torch.eye(C))
    close(multi(x), theirs(x, x, x, attn_mask=~causal_mask(T))[0])


@heads.holds
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
    for one, other in zip(*(torch.autograd.grad(y.sum(), [*multi.parameters()]) for y in sums), strict=True):
        close(one, other)


@heads.holds
def each_head_fills_its_own_channels(library, B, T, n_head, hs):
    multi, x = make(library, T, n_head, hs), draw(B, T, n_head * hs)
    out = multi(x)
    assert out.shape == (B, T, n_head * hs) and len(multi.heads) == n_head
    for i, head in enumerate(multi.heads):
        assert torch.equal(out[..., i * hs : (i + 1) * hs], head(x))


@heads.holds
def is_causal(library, B, T, n_head, hs):
    assert_causal(make(library, T, n_head, hs), draw(B, T, n_head * hs))


@heads.holds
def never_talks_across_the_batch(library, B, T, n_head, hs):
    assert_rows_apart(make(library, T, n_head, hs), draw(B, T, n_head * hs))


@heads.holds
def has_as_many_parameters_as_one_large_head(library, T, n_head, hs):
    multi, C = make(library, T, n_head, hs), n_head * hs
    assert count(multi) == 3 * C * C and all(head.key.weight.shape == (hs, C) for head in multi.heads)


@heads.holds
def heads_differ(library, B, T, n_head, hs):
    """No two heads share or repeat a matrix, and the output of no head repeats another's."""
    multi, x = make(library, T, n_head, hs), draw(B, T, n_head * hs)
    outs = multi(x).split(hs, dim=-1)
    for i in range(n_head):
        for j in range(i):
            one, other = multi.heads[i], multi.heads[j]
            assert (one.query.weight != other.query.weight).any() and (outs[i] != outs[j]).any()


@heads.holds
def all_learn(library, B, T, n_head, hs):
    """The optimizer would be given every head's matrices, and each value matrix gets a gradient."""
    multi, x = make(library, T, n_head, hs), draw(B, T, n_head * hs)
    multi(x).square().sum().backward()
    given = {id(p) for p in multi.parameters()}
    for head in multi.heads:
        assert {id(p) for p in head.parameters()} <= given
        gradient = head.value.weight.grad
        assert gradient is not None and gradient.abs().sum() > 0


@heads.holds
def builds_the_heads_it_is_told(library, T, n_head, hs):
    """`make_head` is called n_head times with (n_embd, head_size, block_size), and its heads are used."""
    calls = []

    def make_head(*sizes):
        calls.append(sizes)
        return Head(*sizes[:3])

    multi = library.MultiHeadAttention(n_head * hs, n_head, T, make_head)
    assert calls == [(n_head * hs, hs, T)] * n_head and all(type(head) is Head for head in multi.heads)


@heads.holds
def model_is_that_body_in_the_frame(library, B, T, n_head, hs):
    """Embeddings, the attention, the head of logits; parameters in the lecture's order."""
    C = n_head * hs
    model = seeded(library.MultiHeadModel, 11, T, C, n_head).double()
    attention = library.MultiHeadAttention, C, n_head, T
    parts = (nn.Embedding, 11, C), (nn.Embedding, T, C), attention, (nn.Linear, C, 11)
    tokens, places, multi, lm_head = seeded(lambda: [kind(*sizes).double() for kind, *sizes in parts])
    idx = torch.arange(B * T).view(B, T) % 11
    assert torch.equal(model(idx)[0], lm_head(multi(tokens(idx) + places(torch.arange(T)))))


test_at_any_size = heads.at_any_size(B=range(1, 4), T=range(1, 7), n_head=range(1, 5), hs=range(1, 5))


def test_one_head_is_the_head():
    x = draw(2, 5, 6)
    assert torch.equal(make(multi_head, 5, 1, 6)(x), seeded(Head, 6, 6, 5).double()(x))


def test_the_lectures_count_of_parameters_for_any_number_of_heads():
    assert {count(MultiHeadModel(65, 8, 32, n_head)) for n_head in (1, 2, 4, 8, 16, 32)} == {7_553}


def test_several_heads_look_in_more_ways_than_one():
    """The rank of what the last output takes from each token, its weights held fixed: one for each head."""
    multi, x = make(multi_head, 6, 4, 2), draw(1, 6, 8)
    parts = [head.attend(x)[1][0, -1][:, None, None] * head.value.weight.T for head in multi.heads]
    assert torch.linalg.matrix_rank(torch.cat(parts, dim=-1).flatten(1)) == 4
    assert torch.linalg.matrix_rank(parts[0].flatten(1)) == 1


test_what_is_refused = refusals(
    *(
        (f"n_embd is {C}, n_head is {n}; expected n_head to divide n_embd", make, *sizes)
        for C, n in [(30, 4), (32, 5), (32, 0), (32, -4), (4, 8)]
        for make, *sizes in [(MultiHeadAttention, C, n, 8), (MultiHeadModel, 65, 8, C, n)]
    ),
    (
        "x has 9 tokens a row; expected at most block_size = 8",
        MultiHeadAttention(8, 2, 8),
        torch.zeros(2, 9, 8),
    ),
    ("x has shape (2, 8, 4); expected (B, T, n_embd)", MultiHeadAttention(8, 2, 8), torch.zeros(2, 8, 4)),
)

CAT, EACH = "[head(x) for head in self.heads], dim=-1", "make_head(n_embd, head_size, block_size)"
heads.faults = [
    ("concatenated over time", "dim=-1", "dim=1", each_head_fills_its_own_channels),
    ("concatenated over the batch", "dim=-1", "dim=0", each_head_fills_its_own_channels),
    ("channels interleaved", f"cat({CAT})", f"stack({CAT}).flatten(-2)", equals_torch),
    ("last head first", "in self.heads]", "in self.heads[::-1]]", each_head_fills_its_own_channels),
    ("averaged, not concatenated", f"torch.cat({CAT})",
     "sum(head(x) for head in self.heads) / len(self.heads)", each_head_fills_its_own_channels),
    ("all the first head's output", "[head(x) for", "[self.heads[0](x) for", heads_differ),
    ("one head, n_head times", f"{EACH} for _ in range(n_head)", f"[{EACH}] * n_head", heads_differ),
    ("one head not trained", "in self.heads]", "in self.heads[:-1]] + [self.heads[-1](x).detach()]",
     all_learn),
    ("heads in a plain list", "nn.ModuleList(", "list(", has_as_many_parameters_as_one_large_head),
    ("every head as wide as the embedding", "n_embd // n_head", "n_embd",
     has_as_many_parameters_as_one_large_head),
    ("heads' size and number swapped", "n_embd // n_head", "n_head", builds_the_heads_it_is_told),
    ("a head too few", "range(n_head)", "range(n_head - 1)", builds_the_heads_it_is_told),
    ("heads that see the future", EACH, EACH.replace(")", ", False)"), is_causal),
    ("always a plain head", f"({EACH}", f"({EACH.replace('make_head', 'Head')}", builds_the_heads_it_is_told),
    ("shorter context", EACH, EACH.replace(")", " - 1)"), builds_the_heads_it_is_told),
    ("texts of a batch mixed", "[head(x)", "[head(x + x.mean(0))", never_talks_across_the_batch),
    ("each head its own channels alone", "[head(x) for head in self.heads]",
     "[head(x * (torch.arange(x.shape[-1]) // (x.shape[-1] // len(self.heads)) == i))"
     " for i, head in enumerate(self.heads)]", equals_one_product_cut_into_heads),
    ("something more in the body", "return MultiHeadAttention(n_embd, n_head, block_size)",
     "return nn.Sequential(nn.LayerNorm(n_embd), MultiHeadAttention(n_embd, n_head, block_size))",
     model_is_that_body_in_the_frame),
]  # fmt: skip
test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(heads)
