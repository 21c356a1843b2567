"""Counts, and text that is held out, chapter 16."""

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import Suite, close, refusals, suite_tests
from texts import V, some_text
from torch.nn import functional as F

from lecture_lib import counts, held_out
from lecture_lib.base.corpus import load_corpus, play_spans

counting, holding_out = Suite(counts), Suite(held_out)

# ---------------------------------------------------------------- counts


@counting.holds
def contexts_are_numbered_by_their_digits(library):
    ids = library.context_ids(torch.tensor([[3, 1, 4, 1]]), 3, 10)
    assert ids.tolist() == [[-1, -1, 314, 141]]


@counting.holds
def counts_are_those_of_the_text(library):
    text = some_text(60)
    table = library.ContextCounts(text, 2, V)
    idx = text[None, :20]
    found = table(library.context_ids(idx, 2, V))[0]
    pairs = list(pairwise(text.tolist()))
    for t in range(1, 20):
        followers = [text[i + 2].item() for i in range(len(text) - 2) if pairs[i] == pairs[t - 1]]
        assert found[t].tolist() == [followers.count(c) for c in range(V)]
    assert not found[0].any()  # one token is no context of two


@counting.holds
def what_never_occurs_has_no_counts(library):
    table = library.ContextCounts(torch.tensor([0, 1, 0, 1, 2]), 2, V)
    assert not table(library.context_ids(torch.tensor([[4, 4, 3, 3]]), 2, V)).any()


@counting.holds
def parts_are_counted_by_themselves(library):
    """A table of parts says of each what a table of that part alone says; a new part has no counts."""
    text = some_text(60)
    text[5:8] = 4  # 4 4 has the highest number: a context too short in part 1 must not be taken for it
    whole = library.ContextCounts(text, 2, V, parts=torch.arange(60) // 20)
    idx = library.context_ids(some_text(17, seed=1)[None], 2, V)
    for part in range(3):  # the two tokens before a part are its first context
        alone = library.ContextCounts(text[max(0, 20 * part - 2) : 20 * part + 20], 2, V)
        assert torch.equal(whole(idx, torch.full_like(idx, part)), alone(idx))
    assert not whole(idx, torch.full_like(idx, 3)).any()


@counting.holds
def discounts_by_hand(library):
    """A share of 1, 2 and 3, and of 4 for more; nothing of 0."""
    seen, shares = torch.tensor([0.0, 1, 2, 3, 4, 9]), torch.tensor([0.5, 0.25, 0.1, 0.2])
    close(library.discounts_of(seen, shares), torch.tensor([0, 0.5, 0.5, 0.3, 0.8, 0.8]), atol=1e-6)


@counting.holds
def interpolation_by_hand(library):
    kept, taken, lower = torch.tensor([1, 0.5, 0]), torch.tensor([1.5]), torch.tensor([0.2, 0.2, 0.6])
    close(library.interpolated(kept, taken, lower), torch.tensor([1.3, 0.8, 0.9]) / 3, atol=1e-6)


@counting.holds
def without_counts_the_shorter_context_stands(library):
    lower = torch.tensor([0.2, 0.8])
    assert torch.equal(library.interpolated(torch.zeros(2), torch.zeros(1), lower), lower)


def on_the_page(library, idx, n):
    """Counts of the page for ids (B, T): what followed each place's last n."""
    return library.page_counts(library.context_ids(idx, n, V), F.one_hot(idx, V).float())


@counting.holds
def the_page_counts_what_followed_earlier(library):
    """By hand, for contexts of one and two tokens; a place never sees its own follower."""
    idx = torch.tensor([[0, 1, 2, 0, 1, 3, 0, 1]])
    one, two = on_the_page(library, idx, 1)[0], on_the_page(library, idx, 2)[0]
    assert one[-1].tolist() == two[-1].tolist() == [0, 0, 1, 1, 0]
    assert one[3].tolist() == [0, 1, 0, 0, 0] and not two[3].any()
    assert not one[:3].any() and not one[5].any() and not on_the_page(library, idx, 3).any()


@counting.holds
def the_page_is_its_own_row(library):
    idx = torch.stack([some_text(30), some_text(30, seed=1)])
    together = on_the_page(library, idx, 2)
    assert torch.equal(together[1:], on_the_page(library, idx[1:], 2)) and together.any()


@counting.holds
def the_prior_is_a_distribution(library):
    idx = torch.randint(V, (3, 17), generator=torch.Generator().manual_seed(1))
    for text in (some_text(), None):
        for page in (True, False):
            probs = library.CountedPrior(V, 3, text, page=page)(idx).exp()
            close(probs.sum(dim=-1), torch.ones(3, 17), atol=1e-5)
            assert probs.min() > 0


@counting.holds
def the_prior_by_hand(library):
    """After 0 the text has 1 twice and 2 once, the page 3 once: with shares of a half, and of a tenth."""
    prior = library.CountedPrior(V, 1, torch.tensor([0, 1, 0, 2, 0, 1]))
    w = prior.page_weights.exp().item()
    single = torch.tensor([4, 3, 2, 1, 1]) / 11
    expected = (torch.tensor([0, 2 - 1, 1 - 0.5, 0.9 * w, 0]) + (1 + 0.5 + 0.1 * w) * single) / (3 + w)
    close(prior(torch.tensor([[0, 3, 0]]))[0, -1].exp(), expected, atol=1e-6)


@counting.holds
def leaving_out_is_never_having_counted(library):
    """Two parts, one left out: the counts of the other, alone."""
    text = some_text(80)
    both = library.CountedPrior(V, 3, text, parts=torch.arange(80) // 40)
    idx = some_text(20, seed=1)[None]
    for n in (1, 2, 3):
        other = library.CountedPrior(V, 3, text[40 - n :])  # with the first context of the second part
        contexts = library.context_ids(idx, n, V)
        left_out = both.text_counts(contexts, n, parts=torch.zeros_like(idx))
        assert torch.equal(left_out, other.text_counts(contexts, n, None)) and left_out.any()


@counting.holds
def longer_contexts_have_the_last_word(library):
    """After 0 1 comes 2, after 3 1 comes 4: the single 1 can't know."""
    text = torch.tensor([0, 1, 2, 3, 1, 4] * 30)
    prior = library.CountedPrior(V, 2, text, page=False)
    probs = prior(torch.tensor([[0, 1], [3, 1]])).exp()[:, -1]
    assert probs[0, 2] > 0.9 and probs[1, 4] > 0.9


@counting.holds
def the_page_has_its_say(library):
    """In the text 0 1 2; on this page 0 1 4. Without the page, or without the text, the other one speaks."""
    text, idx = torch.tensor([0, 1, 2] * 30), torch.tensor([[0, 1, 4, 0, 1, 4, 0, 1]])
    likeliest = [
        library.CountedPrior(V, 2, counted, page=page)(idx)[0, -1].argmax().item()
        for counted, page in ((text, True), (text, False), (None, True))
    ]
    assert likeliest == [4, 2, 4]
    assert library.CountedPrior(V, 2)(idx)[0, -1].exp()[4] > 0.8


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, V - 1), min_size=8, max_size=60), st.integers(1, 4))
def test_the_prior_of_any_text_is_a_distribution_also_with_parts_left_out(ids, order):
    text, parts = torch.tensor(ids), torch.arange(len(ids)) // 5
    prior = counts.CountedPrior(V, order, text, parts)
    for probs in (prior(text[None, :-1]).exp(), prior(text[None, :-1], parts[None, 1:]).exp()):
        close(probs.sum(dim=-1), torch.ones(1, len(ids) - 1), atol=1e-5)
        assert probs.min() > 0


def test_as_many_contexts_as_64_bits_hold_are_enough():
    counts.check_fits_64_bits(2**63, 21)


test_what_is_refused = refusals(
    ("order 11 makes 8.8e+19 contexts; expected at most 9.2e+18", counts.check_fits_64_bits, 65**11, 11),
    ("order 11 makes 8.8e+19", lambda: counts.CountedPrior(65, 11)(torch.zeros(1, 20, dtype=torch.int64))),
    (
        "order 10 makes 1.3e+19 contexts; expected at most 9.2e+18",
        lambda: counts.CountedPrior(65, 10, torch.zeros(20, dtype=torch.int64), torch.arange(20) // 2),
    ),
)

counting.faults = [
    ("digits from the front", "vocab_size**back", "vocab_size**(n - 1 - back)",
     contexts_are_numbered_by_their_digits),
    ("short contexts counted", "ids[:, : n - 1] = -1", "pass", contexts_are_numbered_by_their_digits),
    ("the follower's follower", "(rows, text[n:])", "(rows, text[n - 1 : -1])", counts_are_those_of_the_text),
    ("unknown takes a neighbour's row", "row.where(self.known[row] == ids, len(self.known))", "row",
     what_never_occurs_has_no_counts),
    ("the context's part", "parts[n:]", "parts[n - 1 : -1]", parts_are_counted_by_themselves),
    ("short contexts in a part", "contexts.where(contexts < 0, contexts + parts", "(contexts + parts",
     parts_are_counted_by_themselves),
    ("discounts off by one", "(counts == 1, counts == 2, counts == 3, counts > 3)",
     "(counts == 0, counts == 1, counts == 2, counts > 2)", discounts_by_hand),
    ("5 is not more", "counts > 3)", "counts == 4)", discounts_by_hand),
    ("shares, not amounts", "k * share * level", "share * level", discounts_by_hand),
    ("what is taken is lost", "(kept + taken * lower)", "kept", interpolation_by_hand),
    ("nothing seen, nothing expected", ".where(total > 0, lower)", "",
     without_counts_the_shorter_context_stands),
    ("the page knows what comes", ".tril(-1)", ".tril(0)", the_page_counts_what_followed_earlier),
    ("the page, read to its end", ".tril(-1)", "", the_page_counts_what_followed_earlier),
    ("the page forgets the last", "earlier[:, :, :-1] @ tokens[:, 1:]", "earlier @ tokens",
     the_page_counts_what_followed_earlier),
    ("short contexts on the page", " & (contexts >= 0)[:, None, :]", "",
     the_page_counts_what_followed_earlier),
    ("one page for all rows", "@ tokens[:, 1:]", "@ tokens[:1, 1:]", the_page_is_its_own_row),
    ("nothing taken from the counts", "kept, taken = counts - discounts,", "kept, taken = counts,",
     the_prior_by_hand),
    ("the page's share lost", "taken = taken + self.PAGE_SHARE * page.sum(dim=-1, keepdim=True)", "pass",
     (the_prior_by_hand, the_prior_is_a_distribution)),
    ("page always on", "if self.page:", "if True:", the_page_has_its_say),
    ("page never on", "if self.page:", "if False:", the_page_has_its_say),
    ("page weighed as text", "self.page_weights[n - 1].exp() * page_counts", "page_counts",
     the_page_has_its_say),
    ("parts kept", "counts if parts is None else", "counts if True else",
     leaving_out_is_never_having_counted),
    ("shortest context last", "range(1, len(self.discounts) + 1)", "range(len(self.discounts), 0, -1)",
     longer_contexts_have_the_last_word),
    ("probabilities, not their logarithms", "return probs.log()", "return probs",
     the_prior_is_a_distribution),
]  # fmt: skip

# ---------------------------------------------------------------- held out


@holding_out.holds
def chunks_keep_their_parts(library):
    text, parts_of = torch.arange(400), torch.arange(400) // 100
    xb, yb, parts = library.draw_with_parts(text, parts_of, 64, 16)
    assert xb.shape == yb.shape == parts.shape == (64, 16)
    assert torch.equal(yb, xb + 1) and torch.equal(parts, parts_of[yb])
    assert len(xb[:, 0].unique()) > 32 and (xb.diff() == 1).all()


def test_dev_is_to_the_training_split_what_val_is_to_the_text():
    """The same share is from a play that begins before, all the rest from one that is new."""
    text = load_corpus()
    n_train = int(0.9 * len(text))
    cut = held_out.dev_start(text, n_train)
    shares = []
    for start, end in ((cut, n_train), (n_train, len(text))):
        known, new = [span for span in play_spans(text).values() if span.start < end and span.stop > start]
        assert known.start < start < new.start
        shares.append((known.stop - start) / (end - start))
    assert abs(shares[0] - shares[1]) < 0.01


def test_a_play_has_two_parts():
    text = load_corpus()
    parts = held_out.play_parts(text)
    for i, play in enumerate(play_spans(text).values()):
        third = play.start + (play.stop - play.start) // 3
        assert set(parts[play.start : third].tolist()) == {2 * i}
        assert set(parts[third : play.stop].tolist()) == {2 * i + 1}


holding_out.faults = [
    ("parts of the inputs", "parts[places + 1]", "parts[places]", chunks_keep_their_parts),
    ("a short beginning alone", "draw_places(len(text),", "draw_places(block_size + 1,",
     chunks_keep_their_parts),
]  # fmt: skip

test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(counting, holding_out)
