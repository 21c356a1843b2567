"""Drawing and generating, chapter 06: what must hold, and faults that would break it.

Each property is a function of an implementation: the module `single_head`, or a copy of it with one place of
its source changed. The module passes them all; a planted fault fails exactly those that the table names.
"""

import math
from types import ModuleType

import pytest
import torch
from faults import fault_tests
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lecture_lib import single_head
from lecture_lib.generation import next_token
from lecture_lib.self_attention import Head
from lecture_lib.single_head import SingleHeadModel

V = 11  # size of the vocabulary


def draw_logits(B: int, seed: int = 1337) -> torch.Tensor:
    """Random logits, (B, V), no two of a row alike."""
    return torch.randn(B, V, generator=torch.Generator().manual_seed(seed)) * 2


def draw_ids(B: int, T: int, seed: int = 1337) -> torch.Tensor:
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))


def make_model(library: ModuleType, block_size: int) -> nn.Module:
    """A model with opinions: its logits are large enough that another context gives another text."""
    torch.manual_seed(1337)
    model = library.SingleHeadModel(V, block_size, n_embd=6)
    with torch.no_grad():
        model.lm_head.weight *= 10
    return model


def make_spy(library: ModuleType, block_size: int, logits_of=None) -> nn.Module:
    """A model without parameters that writes down what it is shown, and answers `logits_of(idx)`."""

    class Spy(library.AutoregressiveModel):
        def __init__(self):
            nn.Module.__init__(self)
            self.block_size, self.shown, self.learning = block_size, [], []

        def forward(self, idx):
            self.shown.append(idx.clone())
            self.learning.append(torch.is_grad_enabled())
            return (logits_of or (lambda idx: torch.zeros(*idx.shape, V)))(idx), None

    return Spy()


def generate(model: nn.Module, idx: torch.Tensor, new: int, **how) -> torch.Tensor:
    torch.manual_seed(7)
    return model.generate(idx, new, **how)


def shares(library: ModuleType, logits: torch.Tensor, **how) -> torch.Tensor:
    """How often each token is drawn: (1, V) -> (V,)."""
    torch.manual_seed(7)
    drawn = library.next_token(logits.expand(8000, -1), **how)
    assert drawn.shape == (8000, 1) and drawn.dtype == torch.int64
    return drawn.flatten().bincount(minlength=V) / 8000


# ---------------------------------------------------------------- the properties, for B, T, block_size, new


def appends(library, B, T, block_size, new):
    """`new` tokens more, of the vocabulary, after the prompt, which stays as it is."""
    idx = draw_ids(B, T)
    out = generate(make_model(library, block_size), idx, new)
    assert out.shape == (B, T + new) and out.dtype == torch.int64
    assert torch.equal(out[:, :T], idx) and ((out >= 0) & (out < V)).all()


def shows_the_latest_tokens(library, B, T, block_size, new):
    """Each time the model is shown the last block_size tokens of the text so far: not one more, nor fewer."""
    spy = make_spy(library, block_size)
    out = generate(spy, draw_ids(B, T), new)
    assert len(spy.shown) == new
    for step, shown in enumerate(spy.shown):
        text = out[:, : T + step]
        assert torch.equal(shown, text[:, max(0, T + step - block_size) :])


def draws_from_the_last_position(library, B, T, block_size, new):
    """A model sure that each token's successor is one more makes the text count."""
    spy = make_spy(library, block_size, lambda idx: 1e4 * F.one_hot((idx + 1) % V, V).float())
    idx = draw_ids(B, T)
    counted = (idx[:, -1:] + torch.arange(1, new + 1)) % V
    assert torch.equal(generate(spy, idx, new)[:, T:], counted)


def forgets_what_is_out_of_sight(library, B, T, block_size, new):
    """Prompts that differ only before the last block_size tokens are continued alike."""
    model, tail = make_model(library, block_size), draw_ids(B, block_size)
    one, other = (torch.cat([draw_ids(B, T, seed), tail], dim=1) for seed in (1, 2))
    assert torch.equal(generate(model, one, new)[:, T:], generate(model, other, new)[:, T:])


def repeats_under_a_seed(library, B, T, block_size, new):
    """The same seed gives the same text, and another seed another."""
    model, idx = make_model(library, block_size), draw_ids(B, T)
    assert torch.equal(generate(model, idx, 20), generate(model, idx, 20))
    torch.manual_seed(8)
    assert not torch.equal(model.generate(idx, 20), generate(model, idx, 20))


def builds_no_graph(library, B, T, block_size, new):
    spy = make_spy(library, block_size)
    generate(spy, draw_ids(B, T), new)
    assert spy.learning == [False] * new


def draws_by_probability(library, **_):
    """Shares of many draws are the softmax of the logits over the temperature."""
    for temperature in (0.5, 1.0, 2.0):
        logits = draw_logits(1)
        expected = F.softmax(logits / temperature, dim=-1)[0]
        torch.testing.assert_close(
            shares(library, logits, temperature=temperature), expected, rtol=0, atol=0.03
        )


def top_k_keeps_the_k_likeliest(library, **_):
    """With top_k, the k largest are all that is drawn, by probabilities in their old proportion."""
    logits = draw_logits(1) / 4  # all of them likely enough to be drawn
    for k in (1, 2, 5, V):
        expected = torch.zeros(V)
        values, kept = logits[0].topk(k)
        expected[kept] = F.softmax(values, dim=-1)
        found = shares(library, logits, top_k=k)
        assert set(found.nonzero().flatten().tolist()) == set(kept.tolist())
        torch.testing.assert_close(found, expected, rtol=0, atol=0.03)


def cold_is_greedy(library, B, T, block_size, new):
    """Near temperature 0, and with top_k 1, each row's likeliest token is drawn, whatever the others are."""
    logits = draw_logits(B)
    for how in ({"temperature": 1e-4}, {"top_k": 1}, {"temperature": 100.0, "top_k": 1}):
        assert torch.equal(library.next_token(logits, **how)[:, 0], logits.argmax(dim=-1))


def hands_its_dials_on(library, B, T, block_size, new):
    """`generate` with top_k 1, or nearly frozen, writes what repeated argmax writes."""
    model, idx = make_model(library, block_size), draw_ids(B, T)
    greedy = idx
    for _ in range(new):
        greedy = torch.cat([greedy, model(greedy[:, -block_size:])[0][:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(generate(model, idx, new, top_k=1), greedy)
    assert torch.equal(generate(model, idx, new, temperature=1e-4), greedy)


OF_ANY_SIZE = [
    appends,
    shows_the_latest_tokens,
    draws_from_the_last_position,
    forgets_what_is_out_of_sight,
    repeats_under_a_seed,
    builds_no_graph,
    cold_is_greedy,
    hands_its_dials_on,
]
PROPERTIES = [*OF_ANY_SIZE, draws_by_probability, top_k_keeps_the_k_likeliest]

# ---------------------------------------------------------------- what is right passes


@settings(deadline=None, max_examples=15)
@given(B=st.integers(1, 3), T=st.integers(1, 9), block_size=st.integers(1, 6), new=st.integers(0, 8))
def test_properties(B, T, block_size, new):
    for holds in OF_ANY_SIZE:
        holds(single_head, B, T, block_size, new)


@pytest.mark.parametrize("holds", [draws_by_probability, top_k_keeps_the_k_likeliest])
def test_drawing(holds):
    holds(single_head)


@settings(deadline=None, max_examples=50)
@given(
    logits=st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=20, unique=True),
    temperature=st.floats(0.01, 100),
    data=st.data(),
)
def test_never_outside_the_top_k(logits, temperature, data):
    row = torch.tensor([logits])
    k = data.draw(st.integers(1, len(logits)))
    drawn = next_token(row.expand(50, -1), temperature, k)
    scaled = row[0] / temperature  # two logits may become one number: those that tie with the k-th stay too
    assert (scaled[drawn] >= scaled.sort(descending=True).values[k - 1]).all()


def test_rows_are_drawn_each_by_its_own_logits():
    logits = 1e4 * torch.eye(V)[[3, 0, 9]]
    assert next_token(logits).tolist() == [[3], [0], [9]]


def test_logits_are_left_as_they_were():
    logits = draw_logits(2)
    before = logits.clone()
    next_token(logits, temperature=0.5, top_k=2)
    assert torch.equal(logits, before)


def test_the_lectures_count_of_parameters():
    assert sum(p.numel() for p in SingleHeadModel(65, 8, 32).parameters()) == 7_553


def test_the_body_is_one_head_as_wide_as_the_embedding():
    torch.manual_seed(1337)
    model = SingleHeadModel(V, 8, 6)
    idx, x = draw_ids(2, 5), model.embed(draw_ids(2, 5))
    assert isinstance(model.body, Head)
    assert torch.equal(model(idx)[0], model.lm_head(model.body(x)))
    assert model.body(x).shape == x.shape


# ---------------------------------------------------------------- what is wrong is refused


@pytest.mark.parametrize("temperature", [0, 0.0, -1.0, math.inf, -math.inf, math.nan])
def test_temperatures_that_cannot_be(temperature):
    with pytest.raises(ValueError, match=f"temperature is {temperature}; expected a positive number"):
        next_token(draw_logits(1), temperature=temperature)
    with pytest.raises(ValueError, match=f"temperature is {temperature}"):
        make_model(single_head, 4).generate(draw_ids(1, 2), 1, temperature=temperature)


@pytest.mark.parametrize("top_k", [0, -1, V + 1])
def test_top_k_that_cannot_be(top_k):
    with pytest.raises(ValueError, match=f"top_k is {top_k}; expected 1 to {V}"):
        next_token(draw_logits(1), top_k=top_k)
    with pytest.raises(ValueError, match=f"top_k is {top_k}"):
        make_model(single_head, 4).generate(draw_ids(1, 2), 1, top_k=top_k)


def test_nothing_to_continue():
    with pytest.raises(ValueError, match="idx has rows of 0 tokens; expected at least one"):
        make_model(single_head, 4).generate(draw_ids(2, 0), 3)


def test_a_prompt_that_is_no_batch_of_ids():
    model = make_model(single_head, 4)
    with pytest.raises(ValueError, match=r"idx has shape \(3,\); expected two dimensions"):
        model.generate(torch.tensor([1, 2, 3]), 1)
    with pytest.raises(TypeError, match=r"idx has dtype torch.float32; expected token ids"):
        model.generate(torch.zeros(1, 3), 1)


# ---------------------------------------------------------------- planted faults are caught

APPENDS, LATEST, LAST, SIGHT, SEED, GRAPH, COLD, DIALS, SHARES, TOP = PROPERTIES
CROP = "idx[:, -self.block_size :]"
DRAW = "torch.multinomial(F.softmax(logits, dim=-1), num_samples=1)"
BELOW = "logits < kth"

# the fault, its place in the source, what it becomes, and all properties that must notice
FAULTS = [
    ("not cropped", CROP, "idx", {APPENDS, LATEST, SIGHT, SEED, DIALS}),
    ("first tokens, not the last", CROP, "idx[:, : self.block_size]", {LATEST, LAST, SIGHT, DIALS}),
    ("one token too many", CROP, "idx[:, -self.block_size - 1 :]", {APPENDS, LATEST, SIGHT, SEED, DIALS}),
    ("one token too few", CROP, "idx[:, 1 - self.block_size :]", {LATEST, DIALS}),
    ("only the last token", CROP, "idx[:, -1:]", {LATEST, DIALS}),
    ("drawn from the first position", "logits[:, -1]", "logits[:, 0]", {LAST, DIALS}),
    ("drawn id in front", "[idx, idx_next]", "[idx_next, idx]", {APPENDS, LATEST, LAST, SIGHT, DIALS}),
    ("prompt forgotten", "return idx\n", "return idx[:, -max_new_tokens:]\n",
     {APPENDS, LATEST, LAST, DIALS}),
    ("one token too many drawn", "range(max_new_tokens)", "range(max_new_tokens + 1)",
     {APPENDS, LATEST, LAST, GRAPH, DIALS}),
    ("learns while it writes", "@torch.no_grad()", "", {GRAPH}),
    ("dials not handed on", "logits[:, -1], temperature, top_k", "logits[:, -1]", {DIALS}),
    ("temperature multiplies", "logits / temperature", "logits * temperature", {SHARES, COLD, DIALS}),
    ("temperature ignored", "logits / temperature", "logits", {SHARES, COLD, DIALS}),
    ("one too many kept", ".topk(top_k", ".topk(min(top_k + 1, vocab_size)", {TOP, COLD, DIALS}),
    ("the k-th lost", BELOW, "logits <= kth", {TOP, COLD, DIALS}),
    ("the unlikely kept", BELOW, "logits > kth", {TOP, COLD, DIALS}),
    ("0 for -inf", 'float("-inf")', "0.0", {TOP, COLD, DIALS}),
    ("always the likeliest", DRAW, "logits.argmax(dim=-1, keepdim=True)", {SEED, SHARES, TOP}),
    ("all alike", DRAW, DRAW.replace("logits, dim", "0 * logits, dim"), {LAST, SHARES, TOP, COLD, DIALS}),
    ("softmax over the rows", DRAW, DRAW.replace("-1", "0"), {LAST, SHARES, TOP, COLD, DIALS}),
]  # fmt: skip


test_a_planted_fault_is_caught, test_every_property_catches_a_fault = fault_tests(
    {single_head: (PROPERTIES, FAULTS)}, B=2, T=6, block_size=4, new=7
)


def test_fewer_than_no_tokens_are_refused():
    with pytest.raises(ValueError, match="max_new_tokens is -1; expected 0 or more"):
        make_model(single_head, 4).generate(torch.zeros(1, 1, dtype=torch.long), -1)
