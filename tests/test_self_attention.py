"""Attention, the head and the language model of chapter 05."""

import torch
from kit import Suite, assert_causal, assert_rows_apart, close, draw, refusals, seeded, suite_tests
from torch import nn
from torch.nn import functional as F

from lecture_lib import language_model, self_attention
from lecture_lib.averaging import average_softmax
from lecture_lib.self_attention import Head, attention

one_head = Suite(self_attention, B=2, T=4, C=5, hs=3)
frame = Suite(language_model)


def make_head(library, C, hs, T, causal=True):
    return seeded(library.Head, C, hs, T, causal).double()


def weight_gradients(head, out):
    return torch.autograd.grad((out * draw(*out.shape, seed=3)).sum(), head.parameters())


@one_head.holds
def equals_torch(library, B, T, hs):
    """`attention` against torch's own, with more queries than keys and with fewer, masked and not."""
    for T_q, T_k in ((T, T), (T + 2, T), (T, T + 3)):
        q, k, v = draw(B, T_q, hs), draw(B, T_k, hs, seed=1), draw(B, T_k, hs + 1, seed=2)
        for allowed in (None, torch.ones(T_q, T_k, dtype=torch.bool).tril()):
            close(library.attention(q, k, v, allowed)[0], F.scaled_dot_product_attention(q, k, v, allowed))


@one_head.holds
def head_equals_torch(library, B, T, C, hs):
    """A head's output and the gradients of its three matrices against torch's attention of the same three."""
    head, x = make_head(library, C, hs, T), draw(B, T, C)
    q, k, v = head.query(x), head.key(x), head.value(x)
    out, expected = head(x), F.scaled_dot_product_attention(q, k, v, is_causal=True)
    close(out, expected)
    for ours, theirs in zip(weight_gradients(head, out), weight_gradients(head, expected), strict=True):
        close(ours, theirs)


@one_head.holds
def is_causal(library, B, T, C, hs):
    assert_causal(make_head(library, C, hs, T), draw(B, T, C))


@one_head.holds
def weights_are_shares_of_the_past(library, B, T, C, hs):
    """Each row sums to 1; every weight on the past is positive, every one on the future exactly 0."""
    _, wei = make_head(library, C, hs, T).attend(draw(B, T, C))  # (B, T, T)
    past = torch.ones(T, T, dtype=torch.bool).tril()
    close(wei.sum(dim=-1), torch.ones_like(wei[..., 0]))
    assert (wei[:, past] > 0).all() and (wei[:, ~past] == 0).all()


@one_head.holds
def never_talks_across_the_batch(library, B, T, C, hs):
    assert_rows_apart(make_head(library, C, hs, T), draw(B, T, C))


@one_head.holds
def is_blind_to_order_without_a_mask(library, B, T, C, hs):
    head, x = make_head(library, C, hs, T, causal=False), draw(B, T, C)
    order = torch.randperm(T)
    close(head(x[:, order]), head(x)[:, order])


@one_head.holds
def averages_when_nothing_is_asked(library, B, T, C, hs):
    """A query of zeros finds all keys alike: version 3, the plain average of the values."""
    head, x = make_head(library, C, hs, T), draw(B, T, C)
    nn.init.zeros_(head.query.weight)
    close(head(x), average_softmax(head.value(x)))


@one_head.holds
def has_right_gradients(library, B, T, C, hs):
    head, x = make_head(library, C, hs, T), draw(B, T, C).requires_grad_()
    assert torch.autograd.gradcheck(head, x, raise_exception=False)


test_at_any_size = one_head.at_any_size(B=range(1, 4), T=range(1, 7), C=range(1, 6), hs=range(1, 6))


def test_the_mask_moves_with_the_model_and_is_no_parameter():
    head = Head(4, 3, 8).to("meta")
    assert head(torch.empty(2, 5, 4, device="meta")).device.type == "meta"
    assert [name for name, _ in head.named_parameters()] == ["key.weight", "query.weight", "value.weight"]
    assert "tril" not in head.state_dict()


# ---------------------------------------------------------------- the language model


def make_model(library=language_model, vocab_size=11, n_embd=6):
    return seeded(library.LanguageModel, vocab_size, 8, n_embd, lambda: Head(n_embd, n_embd, 8)).double()


IDX = torch.arange(8)[None]


@frame.holds
def loss_is_the_mean_surprise(library):
    model, idx, targets = make_model(library), IDX[:, :6].view(2, 3), torch.tensor([[1, 7, 3], [4, 9, 6]])
    logits, loss = model(idx, targets)
    close(loss, -logits.log_softmax(dim=-1).gather(2, targets[..., None]).mean())
    assert logits.shape == (2, 3, 11) and model(idx)[1] is None


@frame.holds
def model_is_causal(library):
    assert_causal(lambda idx: make_model(library)(idx)[0], IDX)


@frame.holds
def model_hears_its_past(library):
    model, idx = make_model(library), IDX.clone()
    idx[:, 0] = 10
    assert (model(idx)[0] - model(IDX)[0])[:, -1].abs().max() > 1e-3


@frame.holds
def tokens_enter_as_sums(library):
    """Of the token's own embedding and its position's, the same token differently in another place."""
    model = make_model(library)
    tokens, places = model.token_embedding_table.weight, model.position_embedding_table.weight
    close(model.embed(torch.tensor([[3, 9, 3]]))[0], tokens[[3, 9, 3]] + places[:3])


@frame.holds
def positions_tell_the_order(library):
    """Reversing the past changes the last prediction if, and only if, the model has positions."""
    model, other = make_model(library), torch.cat([IDX[:, :-1].flip(1), IDX[:, -1:]], dim=1)
    assert (model(IDX)[0] - model(other)[0])[:, -1].abs().max() > 1e-3
    nn.init.zeros_(model.position_embedding_table.weight)
    close(model(IDX)[0][:, -1], model(other)[0][:, -1])


@frame.holds
def positions_count_from_the_start(library):
    """The logits of a short context are the first ones of a longer context that begins with it."""
    model = make_model(library)
    close(model(IDX[:, :3])[0], model(IDX)[0][:, :3])


@frame.holds
def positions_follow_the_ids(library):
    """To their device."""
    model, devices = make_model(library).to("meta"), []
    model.position_embedding_table.register_forward_pre_hook(
        lambda _, ids: devices.append(ids[0].device.type)
    )
    model(IDX.to("meta"))
    assert devices == ["meta"]


def test_parameters_are_created_in_the_lectures_order():
    model = make_model(vocab_size=65, n_embd=32)
    names = [name.split(".")[0] for name, _ in model.named_parameters()]
    assert [*dict.fromkeys(names)] == ["token_embedding_table", "position_embedding_table", "body", "lm_head"]
    parts = seeded(lambda: [nn.Embedding(65, 32), nn.Embedding(8, 32), Head(32, 32, 8), nn.Linear(32, 65)])
    for ours, theirs in zip(model.parameters(), nn.ModuleList(parts).parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_model_may_do_without_positions_and_bias():
    model = language_model.LanguageModel(11, 8, 6, nn.Identity, head_bias=False)
    model.position_embedding_table = None
    names = [name for name, _ in model.named_parameters()]
    assert names == ["token_embedding_table.weight", "lm_head.weight"]
    assert torch.equal(model(IDX)[0], model.lm_head(model.token_embedding_table(IDX)))


def zeros(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


x, mask = zeros(2, 3, 4), {"dtype": torch.bool}
test_what_is_refused = refusals(
    ("expected q and k of the same head size", attention, x, zeros(2, 3, 5), x),
    ("expected as many values as keys", attention, x, x, zeros(2, 2, 4)),
    ("expected leading dimensions that broadcast", attention, x, zeros(3, 3, 4), zeros(3, 3, 4)),
    ("expected leading dimensions that broadcast", attention, x, zeros(3, 3, 4), x),
    ("expected leading dimensions that broadcast", attention, x, x, zeros(3, 3, 4)),
    ("mask has shape (3, 2); expected one that broadcasts", attention, x, x, x, zeros(3, 2, **mask)),
    ("mask has shape (9, 2, 3, 3)", attention, x, x, x, zeros(9, 2, 3, 3, **mask)),
    (TypeError, "mask has dtype torch.float32; expected torch.bool", attention, x, x, x, zeros(3, 3)),
    ("x has 9 tokens a row; expected at most block_size = 8", Head(4, 3, 8), zeros(2, 9, 4)),
    ("x has shape (2, 8, 5); expected (B, T, n_embd) with n_embd = 4", Head(4, 3, 8), zeros(2, 8, 5)),
    ("x has shape (8, 4); expected (B, T, n_embd)", Head(4, 3, 8), zeros(8, 4)),
    (TypeError, "idx has dtype torch.float32; expected token ids", make_model(), zeros(2, 3)),
    ("idx has shape (3,); expected two dimensions", make_model(), zeros(3, dtype=torch.long)),
    ("idx has rows of 9 tokens; expected at most block_size", make_model(), zeros(2, 9, dtype=torch.long)),
)

# Query and key swapped matters because the rows of the weights belong to the tokens that look: only the
# comparison with torch, which knows the two apart, can tell. All else holds for such a head too.
MASKED, VALUE = 'wei.masked_fill(~mask, float("-inf"))', "self.value(x), mask"
one_head.faults = [
    ("no mask", MASKED, "wei", (is_causal, weights_are_shares_of_the_past)),
    ("head forgets its mask", "if self.causal else", "if not self.causal else",
     (is_causal, is_blind_to_order_without_a_mask)),
    ("mask transposed", "~mask,", "~mask.mT,", is_causal),
    ("0 for -inf", 'float("-inf")', "0.0", weights_are_shares_of_the_past),
    ("scaled by C", "attention(self.query(x),", "attention(self.query(x) * 0.6**0.5,", head_equals_torch),
    ("not scaled", "q.shape[-1] ** -0.5", "1", equals_torch),
    ("divided by hs, not its root", "** -0.5", "** -1.0", equals_torch),
    ("softmax over the queries", "dim=-1", "dim=-2", weights_are_shares_of_the_past),
    ("query and key swapped", "self.query(x), self.key(x)", "self.key(x), self.query(x)", head_equals_torch),
    ("value not projected", VALUE, "x, mask", head_equals_torch),
    ("talk across the batch", "return wei @ v", "return wei @ (v + v.mean(0))",
     never_talks_across_the_batch),
    ("places known without a mask", VALUE, "self.value(x) * torch.arange(1, T + 1)[:, None], mask",
     (is_blind_to_order_without_a_mask, averages_when_nothing_is_asked)),
    ("gradient of the weights lost", "return wei @ v", "return wei.detach() @ v", has_right_gradients),
]  # fmt: skip
frame.faults = [
    ("no positions", "tok_emb + pos_emb", "tok_emb + 0 * pos_emb", positions_tell_the_order),
    ("positions subtracted", "tok_emb + pos_emb", "tok_emb - pos_emb", tokens_enter_as_sums),
    ("positions stay behind", ", device=idx.device", "", positions_follow_the_ids),
    ("positions from the end", "torch.arange(T, ", "torch.arange(8 - T, 8, ", positions_count_from_the_start),
    ("body left out", "self.body(self.embed(idx))", "self.embed(idx)", model_hears_its_past),
    ("text read backwards", "self.body(self.embed(idx))", "self.body(self.embed(idx).flip(1)).flip(1)",
     model_is_causal),
    ("targets out of order", "targets.flatten()", "targets.mT.flatten()", loss_is_the_mean_surprise),
]  # fmt: skip
test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(one_head, frame)
