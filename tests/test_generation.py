"""Drawing and generating, chapter 06, and its model of a single head."""

import math

import torch
from kit import Suite, close, draw, draw_ids, refusals, seeded, suite_tests
from torch import nn
from torch.nn import functional as F

from lecture_lib import generation
from lecture_lib.generation import check_prompt, next_token
from lecture_lib.self_attention import Head
from lecture_lib.single_head import SingleHeadModel

V = 11  # size of the vocabulary
writing = Suite(generation, B=2, T=6, block_size=4, new=7)
drawing = Suite(generation)


def make_model(library, block_size):
    """A model with opinions: its logits are large enough that another context gives another text."""
    model = seeded(library.AutoregressiveModel, V, block_size, 6, lambda: Head(6, 6, block_size))
    with torch.no_grad():
        model.lm_head.weight *= 10
    return model


def make_spy(library, block_size, logits_of=lambda idx: torch.zeros(*idx.shape, V)):
    """A model without parameters that writes down what it is shown, and answers `logits_of(idx)`."""

    class Spy(library.AutoregressiveModel):
        def __init__(self):
            nn.Module.__init__(self)
            self.block_size, self.shown, self.learning = block_size, [], []

        def forward(self, idx):
            self.shown.append(idx.clone())
            self.learning.append(torch.is_grad_enabled())
            return logits_of(idx), None

    return Spy()


@writing.holds
def appends(library, B, T, block_size, new):
    """`new` tokens more, of the vocabulary, after the prompt, which stays as it is."""
    idx = draw_ids(B, T)
    out = make_model(library, block_size).generate(idx, new)
    assert out.shape == (B, T + new) and out.dtype == torch.int64
    assert torch.equal(out[:, :T], idx) and ((out >= 0) & (out < V)).all()


@writing.holds
def shows_the_latest_tokens(library, B, T, block_size, new):
    """Each time the model is shown the last block_size tokens of the text so far: not one more, nor fewer."""
    spy = make_spy(library, block_size)
    out = spy.generate(draw_ids(B, T), new)
    assert len(spy.shown) == new
    for end, shown in enumerate(spy.shown, start=T):
        assert torch.equal(shown, out[:, max(0, end - block_size) : end])


@writing.holds
def draws_from_the_last_position(library, B, T, block_size, new):
    """A model sure that each token's successor is one more makes the text count."""
    spy = make_spy(library, block_size, lambda idx: 1e4 * F.one_hot((idx + 1) % V, V).float())
    idx = draw_ids(B, T)
    assert torch.equal(spy.generate(idx, new)[:, T:], (idx[:, -1:] + torch.arange(1, new + 1)) % V)


@writing.holds
def repeats_under_a_seed(library, B, T, block_size):
    """The same seed gives the same text, and another seed another."""
    model, idx = make_model(library, block_size), draw_ids(B, T)
    one, again, other = (seeded(model.generate, idx, 20, seed=seed) for seed in (7, 7, 8))
    assert torch.equal(one, again) and not torch.equal(one, other)


@writing.holds
def builds_no_graph(library, B, T, block_size, new):
    spy = make_spy(library, block_size)
    spy.generate(draw_ids(B, T), new)
    assert not any(spy.learning)


@writing.holds
def hands_its_dials_on(library, B, T, block_size, new):
    """`generate` with top_k 1, a tiny top_p, or nearly frozen, writes what repeated argmax writes."""
    model, idx = make_model(library, block_size), draw_ids(B, T)
    greedy = idx
    for _ in range(new):
        greedy = torch.cat([greedy, model(greedy[:, -block_size:])[0][:, -1].argmax(-1, keepdim=True)], dim=1)
    for how in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}):
        assert torch.equal(model.generate(idx, new, **how), greedy)


@writing.holds
def draws_by_the_models_own_probabilities(library, B, T, block_size, new):
    """Unless it is told otherwise: temperature 1."""
    model, idx = make_model(library, block_size), draw_ids(B, T)
    torch.manual_seed(0)
    texts = model.generate(idx, new)
    torch.manual_seed(0)
    assert torch.equal(texts, model.generate(idx, new, temperature=1.0))


test_at_any_size = writing.at_any_size(B=range(1, 4), T=range(1, 10), block_size=range(1, 7), new=range(9))


def some_logits(B, seed=1337):
    """(B, V), no two of a row alike."""
    return 2 * draw(B, V, seed=seed)


def has_shares(library, logits, expected, **how):
    """Of many draws from logits (V,), each token has its expected share, and one without a share none."""
    drawn = library.next_token(logits.expand(8000, V), **how)
    assert drawn.shape == (8000, 1) and drawn.dtype == torch.int64
    found = drawn.flatten().bincount(minlength=V) / 8000
    close(found, expected.float(), atol=0.03)
    assert (found[expected == 0] == 0).all()


@drawing.holds
def draws_by_probability(library):
    """Shares of many draws are the softmax of the logits over the temperature."""
    (logits,) = some_logits(1)
    for temperature in (0.5, 1.0, 2.0):
        has_shares(library, logits, F.softmax(logits / temperature, dim=-1), temperature=temperature)


@drawing.holds
def top_k_keeps_the_k_likeliest(library):
    """With top_k, the k largest are all that is drawn, by probabilities in their old proportion."""
    (logits,) = some_logits(1) / 4  # all of them likely enough to be drawn
    for k in (V, 5, 2, 1):
        values, kept = logits.topk(k)
        has_shares(
            library, logits, torch.zeros(V, dtype=values.dtype).scatter(0, kept, values.softmax(0)), top_k=k
        )


@drawing.holds
def top_p_draws_from_the_nucleus(library):
    """At any temperature, the nucleus of the distribution that is drawn from."""
    (logits,) = some_logits(1)
    for temperature in (0.5, 1.0, 2.0):
        kept = library.nucleus(logits[None] / temperature, 0.8)[0]
        has_shares(library, logits, F.softmax(kept, dim=-1), temperature=temperature, top_p=0.8)


@drawing.holds
def the_nucleus_closes_when_top_p_is_reached(library):
    """Of four tokens that are equally likely, two are as likely as 0.5 together, to the last bit."""
    assert library.nucleus(torch.zeros(1, 4), 0.5).isfinite().sum() == 2


@drawing.holds
def cold_is_greedy(library):
    """Near temperature 0, and with top_k 1, each row's likeliest token is drawn, whatever the others are."""
    logits = some_logits(3)
    for how in ({"temperature": 1e-4}, {"top_k": 1}, {"temperature": 100.0, "top_k": 1}):
        assert torch.equal(library.next_token(logits, **how)[:, 0], logits.argmax(dim=-1))


@drawing.holds
def the_nucleus_is_the_fewest(library):
    """The likeliest tokens stay, as many as it takes to reach top_p, with their old logits."""
    logits = some_logits(20)
    for top_p in (0.05, 0.3, 0.5, 0.8, 0.95, 1.0):
        for row, kept in zip(logits, library.nucleus(logits, top_p), strict=True):
            probs, total = F.softmax(row, dim=-1), 0.0
            expected = torch.full_like(row, -math.inf)
            for token in probs.argsort(descending=True):
                if total < top_p:
                    expected[token] = row[token]
                total += probs[token]
            assert torch.equal(kept, expected)


@drawing.holds
def the_first_of_equals_stay(library):
    """Of 128 tokens that are all as likely, or every second one is, those of the lowest ids."""
    even = torch.arange(128) % 2 == 0
    kept = library.nucleus(torch.stack([torch.zeros(128), 50.0 * even]), 0.5).isfinite()
    assert torch.equal(kept, torch.stack([torch.arange(128) < 64, even & (torch.arange(128) < 64)]))


def test_all_that_tie_with_the_kth_can_be_drawn():
    drawn = next_token(torch.tensor([[0.0, 3.0, 3.0, 3.0, 1.0]]).expand(200, 5), top_k=2)
    assert set(drawn.flatten().tolist()) == {1, 2, 3}


def test_rows_are_drawn_each_by_its_own_logits_which_stay_as_they_are():
    logits = 1e4 * torch.eye(V)[[3, 0, 9]]
    before = logits.clone()
    assert next_token(logits, temperature=0.5, top_k=2, top_p=0.9).tolist() == [[3], [0], [9]]
    assert torch.equal(logits, before)


def test_the_single_heads_body_is_one_head_as_wide_as_the_embedding():
    model, idx = SingleHeadModel(V, 8, 6), draw_ids(2, 5)
    x = model.embed(idx)
    assert isinstance(model.body, Head) and model.body(x).shape == x.shape
    assert torch.equal(model(idx)[0], model.lm_head(model.body(x)))


model, logits = make_model(generation, 4), some_logits(1)
test_what_is_refused = refusals(
    *(
        (f"{dial} is {value}; expected {expected}", call)
        for dial, values, expected in (
            ("temperature", (0, -1.0, math.inf, -math.inf, math.nan), "a positive number"),
            ("top_k", (0, -1, V + 1), f"1 to {V}"),
            ("top_p", (0, -0.1, 1.1, math.nan), "a share of the probability above 0"),
        )
        for value in values
        for call in (
            lambda how={dial: value}: next_token(logits, **how),
            lambda how={dial: value}: model.generate(draw_ids(1, 2), 1, **how),
        )
    ),
    ("idx has rows of 0 tokens; expected at least one", model.generate, draw_ids(2, 0), 3),
    ("idx has shape (3,); expected two dimensions", check_prompt, draw_ids(3), 1),
    (TypeError, "idx has dtype torch.float32; expected token ids", model.generate, torch.zeros(1, 3), 1),
    ("max_new_tokens is -1; expected 0 or more", model.generate, draw_ids(1, 1), -1),
)

CROP, DRAW = "idx[:, -self.block_size :]", "F.softmax(logits, dim=-1), num"
writing.faults = [
    ("not cropped", CROP, "idx", shows_the_latest_tokens),
    ("first tokens, not the last", CROP, "idx[:, : self.block_size]", shows_the_latest_tokens),
    ("one token too many", "-self.block_size :", "-self.block_size - 1 :", shows_the_latest_tokens),
    ("one token too few", "-self.block_size :", "1 - self.block_size :", shows_the_latest_tokens),
    ("only the last token", CROP, "idx[:, -1:]", shows_the_latest_tokens),
    ("drawn from the first position", "logits[:, -1]", "logits[:, 0]", draws_from_the_last_position),
    ("drawn id in front", "[idx, idx_next]", "[idx_next, idx]", appends),
    ("prompt forgotten", "return idx", "return idx[:, -max_new_tokens:]", appends),
    ("one token too many drawn", "range(max_new_tokens)", "range(max_new_tokens + 1)", appends),
    ("learns while it writes", "@torch.no_grad()", "", builds_no_graph),
    ("dials not handed on", "-1], temperature, top_k, top_p", "-1]", hands_its_dials_on),
    ("always the likeliest", "torch.multinomial(F.softmax(logits, dim=-1), num_samples=1)",
     "logits.argmax(dim=-1, keepdim=True)", repeats_under_a_seed),
    ("wild unless told otherwise", "        temperature: float = 1.0", "        temperature: float = 2.0",
     draws_by_the_models_own_probabilities),
]  # fmt: skip
drawing.faults = [
    ("temperature multiplies", "logits / temperature", "logits * temperature",
     (draws_by_probability, cold_is_greedy)),
    ("temperature ignored", "logits / temperature", "logits", draws_by_probability),
    ("one too many kept", ".topk(top_k", ".topk(min(top_k + 1, vocab_size)", top_k_keeps_the_k_likeliest),
    ("the k-th lost", "logits < kth", "logits <= kth", top_k_keeps_the_k_likeliest),
    ("the unlikely kept", "logits < kth", "logits > kth", top_k_keeps_the_k_likeliest),
    ("0 for -inf", 'logits < kth, float("-inf")', "logits < kth, 0.0", top_k_keeps_the_k_likeliest),
    ("all alike", DRAW, DRAW.replace("logits", "0 * logits"), draws_by_probability),
    ("softmax over the rows", DRAW, DRAW.replace("-1", "0"), draws_by_probability),
    ("the one that reaches it left out", "cumsum(dim=-1) - probs", "cumsum(dim=-1)",
     the_nucleus_is_the_fewest),
    ("one more where top_p is reached exactly", "likelier >= top_p).scatter(-1, order, likelier >= top_p)",
     "likelier > top_p).scatter(-1, order, likelier > top_p)",
     the_nucleus_closes_when_top_p_is_reached),
    ("one too many", "probs.cumsum(dim=-1) - probs",
     "(probs.cumsum(dim=-1) - probs).roll(1, dims=-1).index_fill(-1, torch.tensor([0]), 0)",
     the_nucleus_is_the_fewest),
    ("the unlikely first", "descending=True", "descending=False", the_nucleus_is_the_fewest),
    ("equals in any order", ", stable=True", "", the_first_of_equals_stay),
    ("left out in the wrong order", ".scatter(-1, order, likelier >= top_p)", "", the_nucleus_is_the_fewest),
    ("nucleus at temperature 1", "nucleus(logits, top_p)",
     "logits.masked_fill(nucleus(logits * temperature, top_p).isinf(), -math.inf)",
     top_p_draws_from_the_nucleus),
]  # fmt: skip
test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(writing, drawing)
