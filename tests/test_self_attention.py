"""Attention, the head and the language model of chapter 05: what must hold, and faults that would break it.

Each property is a function of an implementation: the module `self_attention`, or a copy of it with one place
of its source changed. The module passes them all; a planted fault fails exactly those that the table names.
"""

from types import ModuleType

import pytest
import torch
from faults import failed, fault_tests, planted
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lecture_lib import language_model, self_attention
from lecture_lib.averaging import average_softmax
from lecture_lib.self_attention import Head, attention, causal_mask

DOUBLE = torch.float64


def draw(*shape: int, seed: int = 1337) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def make_head(library: ModuleType, C: int, hs: int, block_size: int, causal: bool = True) -> nn.Module:
    torch.manual_seed(1337)
    return library.Head(C, hs, block_size, causal).double()


def close(actual: torch.Tensor, expected: torch.Tensor, atol: float = 1e-10) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def weight_gradients(head: nn.Module, out: torch.Tensor) -> list[torch.Tensor]:
    return torch.autograd.grad(
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum(), head.parameters()
    )


# ---------------------------------------------------------------- the properties, for B, T, C, hs


def equals_torch(library, B, T, C, hs):
    """`attention` against torch's own, with more queries than keys and with fewer, masked and not."""
    for T_q, T_k in ((T, T), (T + 2, T), (T, T + 3)):
        q, k, v = draw(B, T_q, hs), draw(B, T_k, hs, seed=1), draw(B, T_k, hs + 1, seed=2)
        mask = torch.ones(T_q, T_k, dtype=torch.bool).tril()
        for allowed in (None, mask):
            close(library.attention(q, k, v, allowed)[0], F.scaled_dot_product_attention(q, k, v, allowed))


def head_equals_torch(library, B, T, C, hs):
    """A head's output and the gradients of its three matrices against torch's attention of the same three."""
    head, x = make_head(library, C, hs, T), draw(B, T, C)
    q, k, v = head.query(x), head.key(x), head.value(x)  # (B, T, hs)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    out = head(x)
    close(out, expected)
    for ours, theirs in zip(weight_gradients(head, out), weight_gradients(head, expected), strict=True):
        close(ours, theirs)


def is_causal(library, B, T, C, hs):
    """Outputs up to t stay the same, bit for bit, whatever the tokens after t are."""
    head, x = make_head(library, C, hs, T), draw(B, T, C)
    before = head(x)
    for t in range(T):
        changed = x.clone()
        changed[:, t + 1 :] = 3 - 2 * changed[:, t + 1 :]
        assert torch.equal(head(changed)[:, : t + 1], before[:, : t + 1]), f"changed after {t}"


def weights_are_shares_of_the_past(library, B, T, C, hs):
    """Each row sums to 1; every weight on the past is positive, every one on the future exactly 0."""
    _, wei = make_head(library, C, hs, T).attend(draw(B, T, C))  # (B, T, T)
    past = torch.ones(T, T, dtype=torch.bool).tril()
    close(wei.sum(dim=-1), torch.ones(B, T, dtype=DOUBLE))
    assert (wei[:, past] > 0).all() and (wei[:, ~past] == 0).all()


def never_talks_across_the_batch(library, B, T, C, hs):
    """The gradient of one row's outputs is exactly 0 in every other row, and not 0 in its own."""
    head = make_head(library, C, hs, T)
    for b in range(B):
        x = draw(B, T, C).requires_grad_()
        (gradient,) = torch.autograd.grad(head(x)[b].square().sum(), x)
        assert gradient[b].abs().sum() > 0
        gradient[b] = 0
        assert (gradient == 0).all()


def is_blind_to_order_without_a_mask(library, B, T, C, hs):
    head, x = make_head(library, C, hs, T, causal=False), draw(B, T, C)
    order = torch.randperm(T, generator=torch.Generator().manual_seed(7))
    close(head(x[:, order]), head(x)[:, order])


def averages_when_nothing_is_asked(library, B, T, C, hs):
    """A query of zeros finds all keys alike: version 3, the plain average of the values."""
    head, x = make_head(library, C, hs, T), draw(B, T, C)
    nn.init.zeros_(head.query.weight)
    close(head(x), average_softmax(head.value(x)))


def has_right_gradients(library, B, T, C, hs):
    head = make_head(library, C, hs, T)
    assert torch.autograd.gradcheck(head, draw(B, T, C).requires_grad_())


PROPERTIES = [
    equals_torch,
    head_equals_torch,
    is_causal,
    weights_are_shares_of_the_past,
    never_talks_across_the_batch,
    is_blind_to_order_without_a_mask,
    averages_when_nothing_is_asked,
    has_right_gradients,
]

# ---------------------------------------------------------------- what is right passes


@settings(deadline=None, max_examples=25)
@given(B=st.integers(1, 3), T=st.integers(1, 6), C=st.integers(1, 5), hs=st.integers(1, 5))
def test_properties(B, T, C, hs):
    for holds in PROPERTIES:
        holds(self_attention, B, T, C, hs)


def test_one_head_of_multihead_attention_with_the_same_weights():
    C, T = 6, 5
    head, x = make_head(self_attention, C, C, T), draw(2, T, C)
    theirs = nn.MultiheadAttention(C, num_heads=1, bias=False, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([head.query.weight, head.key.weight, head.value.weight]))
        theirs.out_proj.weight.copy_(torch.eye(C))
    out, wei = theirs(x, x, x, attn_mask=~causal_mask(T))  # there True means forbidden
    close(head(x), out)
    close(head.attend(x)[1], wei)


def test_an_encoder_head_is_not_causal():
    head, x = make_head(self_attention, 4, 4, 5, causal=False), draw(1, 5, 4)
    changed = x.clone()
    changed[:, -1] += 1
    assert (head(changed)[:, 0] != head(x)[:, 0]).any()


def test_numbers_worked_by_hand():
    q, k, v = torch.tensor([[2.0]]), torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [1.0]])
    out, wei = attention(q, k, v)  # scores 0 and 2, scaled by 1
    share = torch.tensor(2.0).exp() / (1 + torch.tensor(2.0).exp())
    close(wei, torch.stack([1 - share, share])[None], atol=1e-6)
    close(out, share.view(1, 1), atol=1e-6)


def test_a_shorter_context_than_block_size_is_the_beginning_of_a_longer_one():
    head, x = make_head(self_attention, 4, 3, 8), draw(2, 8, 4)
    close(head(x[:, :3]), head(x)[:, :3])


def test_the_mask_moves_with_the_model_and_is_no_parameter():
    head = Head(4, 3, 8).to("meta")
    assert head(torch.empty(2, 5, 4, device="meta")).device.type == "meta"
    assert [name for name, _ in head.named_parameters()] == ["key.weight", "query.weight", "value.weight"]
    assert "tril" not in head.state_dict()


# ---------------------------------------------------------------- what is wrong is refused


@pytest.mark.parametrize(
    ("q", "k", "v", "mask", "message"),
    [
        ((2, 3, 4), (2, 3, 5), (2, 3, 4), None, "expected q and k of one head size"),
        ((2, 3, 4), (2, 3, 4), (2, 2, 4), None, "expected as many values as keys"),
        ((2, 3, 4), (3, 3, 4), (3, 3, 4), None, "expected leading dimensions that broadcast"),
        ((2, 3, 4), (2, 3, 4), (2, 3, 4), (3, 2), r"mask has shape \(3, 2\); expected .* \(2, 3, 3\)"),
        ((2, 3, 4), (2, 3, 4), (2, 3, 4), (9, 2, 3, 3), r"mask has shape \(9, 2, 3, 3\)"),
    ],
)
def test_shapes_that_do_not_fit(q, k, v, mask, message):
    allowed = None if mask is None else torch.ones(mask, dtype=torch.bool)
    with pytest.raises(ValueError, match=message):
        attention(torch.zeros(q), torch.zeros(k), torch.zeros(v), allowed)


def test_a_mask_of_numbers_is_refused():
    x = torch.zeros(1, 2, 2)
    with pytest.raises(TypeError, match=r"mask has dtype torch.float32; expected torch.bool"):
        attention(x, x, x, torch.ones(2, 2))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 9, 4), "x has 9 tokens a row; expected at most block_size = 8"),
        ((2, 8, 5), r"x has shape \(2, 8, 5\); expected \(B, T, n_embd\) with n_embd = 4"),
        ((8, 4), r"x has shape \(8, 4\); expected \(B, T, n_embd\)"),
    ],
)
def test_head_refuses(shape, message):
    with pytest.raises(ValueError, match=message):
        Head(4, 3, 8)(torch.zeros(shape))


# ---------------------------------------------------------------- the language model


def make_model(library: ModuleType = language_model, vocab_size=11, block_size=8, n_embd=6) -> nn.Module:
    torch.manual_seed(1337)
    return library.LanguageModel(vocab_size, block_size, n_embd, lambda: Head(n_embd, n_embd, block_size))


def loss_is_the_mean_surprise(library):
    model, idx, targets = (
        make_model(library),
        torch.arange(6).view(2, 3),
        torch.tensor([[1, 7, 3], [4, 9, 6]]),
    )
    logits, loss = model(idx, targets)
    log_probs = logits.log_softmax(dim=-1)
    by_hand = -sum(log_probs[b, t, targets[b, t]] for b in range(2) for t in range(3)) / 6
    close(loss, by_hand, atol=1e-5)
    assert model(idx)[1] is None


def model_is_causal(library):
    model, idx = make_model(library), torch.arange(8)[None]
    for t in range(7):
        changed = idx.clone()
        changed[:, t + 1 :] = 10
        assert torch.equal(model(changed)[0][:, : t + 1], model(idx)[0][:, : t + 1])


def model_hears_its_past(library):
    model, idx = make_model(library), torch.arange(8)[None]
    changed = idx.clone()
    changed[:, 0] = 10
    assert (model(changed)[0] - model(idx)[0])[:, -1].abs().max() > 1e-3


def positions_tell_the_order(library):
    """Reversing the past changes the last prediction if, and only if, the model has positions."""
    model, idx = make_model(library), torch.arange(8)[None]
    other = torch.cat([idx[:, :-1].flip(1), idx[:, -1:]], dim=1)
    assert (model(idx)[0] - model(other)[0])[:, -1].abs().max() > 1e-3
    nn.init.zeros_(model.position_embedding_table.weight)
    close(model(idx)[0][:, -1], model(other)[0][:, -1], atol=1e-6)


def positions_count_from_the_start(library):
    """The logits of a short context are the first ones of a longer context that begins with it."""
    model, idx = make_model(library), torch.arange(8)[None]
    close(model(idx[:, :3])[0], model(idx)[0][:, :3], atol=1e-6)


FRAME_PROPERTIES = [
    loss_is_the_mean_surprise,
    model_is_causal,
    model_hears_its_past,
    positions_tell_the_order,
    positions_count_from_the_start,
]
LOSS, MODEL_CAUSAL, PAST, PLACES, START = FRAME_PROPERTIES
FRAME_FAULTS = [
    ("no positions", "return tok_emb + pos_emb", "return tok_emb + 0 * pos_emb", {PLACES}),
    ("positions from the end", "torch.arange(T, ", "torch.arange(8 - T, 8, ", {START}),
    ("body left out", "self.body(self.embed(idx))", "self.embed(idx)", {PAST, PLACES}),
    ("text read backwards", "self.body(self.embed(idx))", "self.body(self.embed(idx).flip(1)).flip(1)",
     {MODEL_CAUSAL, PAST, PLACES, START}),
    ("targets out of order", "targets.flatten()", "targets.mT.flatten()", {LOSS}),
]  # fmt: skip


@pytest.mark.parametrize("holds", FRAME_PROPERTIES, ids=lambda holds: holds.__name__)
def test_language_model_properties(holds):
    holds(language_model)


@pytest.mark.parametrize(("old", "new", "noticed_by"), [pytest.param(*f[1:], id=f[0]) for f in FRAME_FAULTS])
def test_a_fault_planted_in_the_language_model_is_caught(old, new, noticed_by):
    assert failed(planted(language_model, old, new), FRAME_PROPERTIES) == noticed_by


@settings(deadline=None, max_examples=25)
@given(B=st.integers(1, 4), T=st.integers(1, 8), vocab_size=st.integers(1, 20))
def test_language_model_shapes(B, T, vocab_size):
    logits, loss = make_model(vocab_size=vocab_size)(*torch.randint(vocab_size, (2, B, T)))
    assert logits.shape == (B, T, vocab_size) and loss.shape == ()


def test_parameters_are_created_in_the_lectures_order():
    model = make_model(vocab_size=65, block_size=8, n_embd=32)
    names = [name.split(".")[0] for name, _ in model.named_parameters()]
    assert list(dict.fromkeys(names)) == [
        "token_embedding_table", "position_embedding_table", "body", "lm_head"
    ]  # fmt: skip
    torch.manual_seed(1337)
    tables = nn.Embedding(65, 32), nn.Embedding(8, 32)
    head, lm_head = Head(32, 32, 8), nn.Linear(32, 65)
    assert torch.equal(model.token_embedding_table.weight, tables[0].weight)
    assert torch.equal(model.position_embedding_table.weight, tables[1].weight)
    assert torch.equal(model.body.value.weight, head.value.weight)
    assert torch.equal(model.lm_head.weight, lm_head.weight)


@pytest.mark.parametrize(
    ("idx", "error", "message"),
    [
        (torch.zeros(2, 3), TypeError, "idx has dtype torch.float32; expected token ids"),
        (torch.zeros(3, dtype=torch.long), ValueError, r"idx has shape \(3,\); expected two dimensions"),
        (
            torch.zeros(2, 9, dtype=torch.long),
            ValueError,
            "idx has rows of 9 tokens; expected at most block_size",
        ),
    ],
)
def test_language_model_refuses(idx, error, message):
    with pytest.raises(error, match=message):
        make_model()(idx)


# ---------------------------------------------------------------- planted faults are caught

TORCH, HEAD, CAUSAL, SHARES, BATCH, ORDER, AVERAGE, GRADIENT = PROPERTIES
SCALE = "q.shape[-1] ** -0.5"
MASKED = 'wei.masked_fill(~mask, float("-inf"))'
PROJECTED = "self.query(x), self.key(x), self.value(x), mask"

# the fault, its place in the source, what it becomes, and all properties that must notice.
# Query and key swapped matters because the rows of the weights belong to the tokens that look: only the
# comparison with torch, which knows the two apart, can tell. All else holds for such a head too.
FAULTS = [
    ("no mask", MASKED, "wei", {TORCH, HEAD, CAUSAL, SHARES, AVERAGE}),
    ("head forgets its mask", "if self.causal else None", "if not self.causal else None",
     {HEAD, CAUSAL, SHARES, ORDER, AVERAGE}),
    ("mask transposed", "masked_fill(~mask", "masked_fill(~mask.mT", {TORCH, HEAD, CAUSAL, SHARES, AVERAGE}),
    ("0 for -inf", 'float("-inf")', "0.0", {TORCH, HEAD, CAUSAL, SHARES, AVERAGE}),
    ("scaled by C", PROJECTED, PROJECTED.replace("self.query(x)", "self.query(x) * (3 / 5) ** 0.5"), {HEAD}),
    ("not scaled", SCALE, "1", {TORCH, HEAD}),
    ("divided by hs, not its root", SCALE, "q.shape[-1] ** -1.0", {TORCH, HEAD}),
    ("softmax over the queries", "dim=-1)  # over the keys", "dim=-2)  # over the keys",
     {TORCH, HEAD, CAUSAL, SHARES, AVERAGE}),
    ("query and key swapped", "self.query(x), self.key(x)", "self.key(x), self.query(x)", {HEAD}),
    ("value not projected", PROJECTED, PROJECTED.replace("self.value(x)", "x"), {HEAD, AVERAGE}),
    ("talk across the batch", "return wei @ v, wei", "return wei @ (v + 0 * v + v.mean(0)), wei",
     {TORCH, HEAD, BATCH, AVERAGE}),
    ("places known without a mask", PROJECTED, PROJECTED.replace(
        "self.value(x)", "self.value(x) * torch.arange(1, T + 1)[:, None]"), {HEAD, ORDER, AVERAGE}),
    ("gradient of the weights lost", "return wei @ v, wei", "return wei.detach() @ v, wei", {HEAD, GRADIENT}),
]  # fmt: skip


test_a_planted_fault_is_caught, test_every_property_catches_a_fault = fault_tests(
    {self_attention: (PROPERTIES, FAULTS)}, B=2, T=4, C=5, hs=3
)
