"""Multi-head attention, chapter 07."""

import torch
from kit import Suite, assert_causal, assert_rows_apart, close, count, draw, refusals, seeded, suite_tests
from torch import nn

from lecture_lib import multi_head
from lecture_lib.multi_head import MultiHeadAttention, MultiHeadModel
from lecture_lib.self_attention import Head, causal_mask

heads = Suite(multi_head, B=2, T=4, n_head=3, hs=2)


def make(library, T, n_head, hs):
    """The module for n_head heads of hs channels, in double precision."""
    return seeded(library.MultiHeadAttention, n_head * hs, n_head, T).double()


@heads.holds
def equals_torch(library, B, T, n_head, hs):
    """nn.MultiheadAttention with the same matrices, and the identity for its output projection."""
    multi, x, C = make(library, T, n_head, hs), draw(B, T, n_head * hs), n_head * hs
    theirs = nn.MultiheadAttention(C, n_head, bias=False, batch_first=True).double()
    stacked = [getattr(head, name).weight for name in ("query", "key", "value") for head in multi.heads]
    theirs.in_proj_weight = nn.Parameter(torch.cat(stacked))
    theirs.out_proj.weight = nn.Parameter(torch.eye(C).double())
    close(multi(x), theirs(x, x, x, attn_mask=~causal_mask(T))[0])


@heads.holds
def is_causal(library, B, T, n_head, hs):
    assert_causal(make(library, T, n_head, hs), draw(B, T, n_head * hs))


@heads.holds
def never_talks_across_the_batch(library, B, T, n_head, hs):
    assert_rows_apart(make(library, T, n_head, hs), draw(B, T, n_head * hs))


@heads.holds
def has_one_large_heads_parameters(library, T, n_head, hs):
    multi, C = make(library, T, n_head, hs), n_head * hs
    assert count(multi) == 3 * C * C and all(head.key.weight.shape == (hs, C) for head in multi.heads)


@heads.holds
def all_learn(library, B, T, n_head, hs):
    multi = make(library, T, n_head, hs)
    multi(draw(B, T, n_head * hs)).square().sum().backward()
    assert all(head.value.weight.grad is not None for head in multi.heads)


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


def test_the_lectures_count_of_parameters_for_any_number_of_heads():
    assert {count(MultiHeadModel(65, 8, 32, n_head)) for n_head in (1, 2, 4, 8, 16, 32)} == {7_553}


test_what_is_refused = refusals(
    *(
        (f"n_embd is {C}, n_head is {n}; expected n_head to divide n_embd", make, *sizes)
        for C, n in [(30, 4), (32, 5), (32, 0), (32, -4), (4, 8)]
        for make, *sizes in [(MultiHeadAttention, C, n, 8), (MultiHeadModel, 65, 8, C, n)]
    ),
)

CAT, EACH = "[head(x) for head in self.heads], dim=-1", "make_head(n_embd, head_size, block_size)"
heads.faults = [
    ("concatenated over time", "dim=-1", "dim=1", equals_torch),
    ("concatenated over the batch", "dim=-1", "dim=0", equals_torch),
    ("channels interleaved", f"cat({CAT})", f"stack({CAT}).flatten(-2)", equals_torch),
    ("last head first", "in self.heads]", "in self.heads[::-1]]", equals_torch),
    ("averaged, not concatenated", f"torch.cat({CAT})",
     "sum(head(x) for head in self.heads) / len(self.heads)", equals_torch),
    ("all the first head's output", "[head(x) for", "[self.heads[0](x) for", equals_torch),
    ("one head, n_head times", f"{EACH} for _ in range(n_head)", f"[{EACH}] * n_head",
     has_one_large_heads_parameters),
    ("one head not trained", "in self.heads]", "in self.heads[:-1]] + [self.heads[-1](x).detach()]",
     all_learn),
    ("heads in a plain list", "nn.ModuleList(", "list(", has_one_large_heads_parameters),
    ("every head as wide as the embedding", "n_embd // n_head", "n_embd",
     has_one_large_heads_parameters),
    ("heads' size and number swapped", "n_embd // n_head", "n_head", builds_the_heads_it_is_told),
    ("a head too few", "range(n_head)", "range(n_head - 1)", builds_the_heads_it_is_told),
    ("heads that see the future", EACH, EACH.replace(")", ", False)"), is_causal),
    ("always a plain head", f"({EACH}", f"({EACH.replace('make_head', 'Head')}", builds_the_heads_it_is_told),
    ("shorter context", EACH, EACH.replace(")", " - 1)"), builds_the_heads_it_is_told),
    ("texts of a batch mixed", "[head(x)", "[head(x + x.mean(0))", never_talks_across_the_batch),
    ("each head its own channels alone", "[head(x) for head in self.heads]",
     "[head(x * (torch.arange(x.shape[-1]) // (x.shape[-1] // len(self.heads)) == i))"
     " for i, head in enumerate(self.heads)]", equals_torch),
    ("something more in the body", "return MultiHeadAttention(n_embd, n_head, block_size)",
     "return nn.Sequential(nn.LayerNorm(n_embd), MultiHeadAttention(n_embd, n_head, block_size))",
     model_is_that_body_in_the_frame),
]  # fmt: skip
test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(heads)


def test_several_heads_look_in_more_ways_than_one():
    """The rank of what the last output takes from each token, its weights held fixed: one for each head."""
    multi, x = make(multi_head, 6, 4, 2), draw(1, 6, 8)
    parts = [head.attend(x)[1][0, -1][:, None, None] * head.value.weight.T for head in multi.heads]
    assert torch.linalg.matrix_rank(torch.cat(parts, dim=-1).flatten(1)) == 4
    assert torch.linalg.matrix_rank(parts[0].flatten(1)) == 1
