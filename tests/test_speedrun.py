"""Chapter 16: counts, the modern block, Muon, the race. Properties, and planted faults that they catch."""

import math
from itertools import pairwise

import pytest
import torch
from faults import fault_tests
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from lecture_lib import counts, modern_block, muon, speedrun
from lecture_lib.course.corpus import load_corpus, play_spans
from lecture_lib.course.races import RACES, variants
from lecture_lib.gpt import GPTConfig

close = torch.testing.assert_close
V = 5
RECIPES = RACES | variants()


def some_text(n: int = 400, seed: int = 0) -> torch.Tensor:
    """Ids of a text in which contexts come again: a walk that mostly goes on by 1."""
    generator = torch.Generator().manual_seed(seed)
    steps = (torch.rand(n, generator=generator) < 0.3).long() + 1
    return steps.cumsum(0) % V


# ---------------------------------------------------------------- counts


def contexts_are_numbered_by_their_digits(library):
    ids = library.context_ids(torch.tensor([[3, 1, 4, 1]]), 3, 10)
    assert ids.tolist() == [[-1, -1, 314, 141]]


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


def what_never_occurs_has_no_counts(library):
    table = library.ContextCounts(torch.tensor([0, 1, 0, 1, 2]), 2, V)
    assert not table(library.context_ids(torch.tensor([[4, 4, 3, 3]]), 2, V)).any()


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


def discounts_by_hand(library):
    """A share of 1, 2 and 3, and of 4 for more; nothing of 0."""
    taken = library.discounts_of(
        torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 9.0]), torch.tensor([0.5, 0.25, 0.1, 0.2])
    )
    close(taken, torch.tensor([0, 0.5, 0.5, 0.3, 0.8, 0.8]), rtol=0, atol=1e-6)


def interpolation_by_hand(library):
    probs = library.interpolated(
        torch.tensor([1.0, 0.5, 0.0]), torch.tensor([1.5]), torch.tensor([0.2, 0.2, 0.6])
    )
    close(probs, torch.tensor([1.3, 0.8, 0.9]) / 3, rtol=0, atol=1e-6)


def without_counts_the_shorter_context_stands(library):
    lower = torch.tensor([0.2, 0.8])
    close(library.interpolated(torch.zeros(2), torch.zeros(1), lower), lower, rtol=0, atol=0)


def on_the_page(library, idx, n):
    """Counts of the page for ids (B, T): what followed each place's last n."""
    return library.page_counts(library.context_ids(idx, n, V), F.one_hot(idx, V).float())


def the_page_counts_what_followed_earlier(library):
    """By hand, for contexts of one and two tokens; a place never sees its own follower."""
    idx = torch.tensor([[0, 1, 2, 0, 1, 3, 0, 1]])
    one, two = on_the_page(library, idx, 1)[0], on_the_page(library, idx, 2)[0]
    assert one[-1].tolist() == two[-1].tolist() == [0, 0, 1, 1, 0]
    assert one[3].tolist() == [0, 1, 0, 0, 0] and not two[3].any()
    assert not one[:3].any() and not one[5].any() and not on_the_page(library, idx, 3).any()


def the_page_is_its_own_row(library):
    idx = torch.stack([some_text(30), some_text(30, seed=1)])
    together = on_the_page(library, idx, 2)
    assert torch.equal(together[1:], on_the_page(library, idx[1:], 2)) and together.any()


def the_prior_is_a_distribution(library):
    idx = torch.randint(V, (3, 17), generator=torch.Generator().manual_seed(1))
    for text in (some_text(), None):
        for page in (True, False):
            probs = library.CountedPrior(V, 3, text, page=page)(idx).exp()
            close(probs.sum(dim=-1), torch.ones(3, 17), rtol=0, atol=1e-5)
            assert probs.min() > 0


def the_prior_by_hand(library):
    """After 0 the text has 1 twice and 2 once, the page 3 once: with shares of a half, and of a tenth."""
    prior = library.CountedPrior(V, 1, torch.tensor([0, 1, 0, 2, 0, 1]))
    w = prior.page_weights.exp().item()
    single = torch.tensor([4, 3, 2, 1, 1]) / 11
    expected = (torch.tensor([0, 2 - 1, 1 - 0.5, 0.9 * w, 0]) + (1 + 0.5 + 0.1 * w) * single) / (3 + w)
    close(prior(torch.tensor([[0, 3, 0]]))[0, -1].exp(), expected, rtol=0, atol=1e-6)


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


def longer_contexts_have_the_last_word(library):
    """After 0 1 comes 2, after 3 1 comes 4: the single 1 can't know."""
    text = torch.tensor([0, 1, 2, 3, 1, 4] * 30)
    prior = library.CountedPrior(V, 2, text, page=False)
    probs = prior(torch.tensor([[0, 1], [3, 1]])).exp()[:, -1]
    assert probs[0, 2] > 0.9 and probs[1, 4] > 0.9


def the_page_has_its_say(library):
    """In the text 0 1 2; on this page 0 1 4. Without the page, or without the text, the other one speaks."""
    text, idx = torch.tensor([0, 1, 2] * 30), torch.tensor([[0, 1, 4, 0, 1, 4, 0, 1]])
    likeliest = [
        library.CountedPrior(V, 2, counted, page=page)(idx)[0, -1].argmax().item()
        for counted, page in ((text, True), (text, False), (None, True))
    ]
    assert likeliest == [4, 2, 4]
    assert library.CountedPrior(V, 2)(idx)[0, -1].exp()[4] > 0.8


# ---------------------------------------------------------------- the modern block

CONFIG = GPTConfig(vocab_size=V, block_size=16, n_embd=16, n_head=2, n_layer=2)


def unit_vectors_have_mean_square_1(library):
    x = 7 * torch.randn(3, 4, 16) + 2
    close(library.unit(x).pow(2).mean(dim=-1), torch.ones(3, 4), rtol=0, atol=1e-4)
    close(library.unit(3 * x), library.unit(x), rtol=0, atol=1e-5)


def turning_is_relative(library):
    angles = library.rotary_angles(64, 8)
    q, k = torch.randn(2, 1, 8)
    products = [
        (library.rotated(q, angles[i : i + 1]) * library.rotated(k, angles[i - 3 : i - 2])).sum()
        for i in (3, 20, 63)
    ]
    close(torch.stack(products), products[0].expand(3), rtol=0, atol=1e-4)


def turning_keeps_lengths_and_tells_places_apart(library):
    x = torch.randn(1, 8).expand(64, 8)
    turned = library.rotated(x, library.rotary_angles(64, 8))
    close(turned.norm(dim=-1), x.norm(dim=-1), rtol=0, atol=1e-4)
    close(turned[0], x[0], rtol=0, atol=0)
    assert (turned[1:] - turned[:-1]).norm(dim=-1).min() > 0.1


def speeds_fall_from_1(library):
    angles = library.rotary_angles(3, 8)
    close(angles[1], torch.tensor([1, 1e-1, 1e-2, 1e-3]), rtol=1e-5, atol=0)
    close(angles[2], 2 * angles[1], rtol=1e-6, atol=0)


def qk_norm_makes_the_size_of_weights_irrelevant(library):
    attention, x = library.RotaryAttention(CONFIG), torch.randn(2, 16, 16)
    before = attention(x)
    with torch.no_grad():
        attention.qkv.weight[: 2 * 16] *= 50  # queries and keys
    close(attention(x), before, rtol=0, atol=1e-4)


def the_block_is_nothing_at_first(library):
    x = torch.randn(2, 16, 16)
    assert torch.equal(library.ModernBlock(CONFIG)(x), x)


def the_block_is_causal(library):
    block, x = library.ModernBlock(CONFIG, ("zero start",)), torch.randn(2, 16, 16)
    changed = x.clone()
    changed[:, 9] += 1
    differs = (block(changed) - block(x)).abs().amax(dim=-1) > 1e-6
    assert not differs[:, :9].any() and differs[:, 9:].all()


def the_order_of_the_past_matters(library):
    """With rotary positions; without them the last token sees its past as a set."""
    x = torch.randn(1, 16, 16)
    swapped = x[:, [1, 0, *range(2, 16)]]
    for without, differs in (((), True), (("rotary positions",), False)):
        attention = library.ModernBlock(CONFIG, ("zero start", *without)).sa
        assert ((attention(x) - attention(swapped))[0, -1].abs().max() > 1e-5) == differs


def relu_is_squared(library):
    close(library.SquaredReLU()(torch.tensor([-2.0, 0.5, 3.0])), torch.tensor([0, 0.25, 9.0]), rtol=0, atol=0)


# ---------------------------------------------------------------- Muon


def singular_values_come_near_1(library):
    for m, n in ((8, 8), (32, 8), (8, 32)):
        U, V_ = torch.linalg.qr(torch.randn(m, m))[0][:, :8], torch.linalg.qr(torch.randn(n, n))[0][:, :8]
        matrix = U @ torch.linspace(0.1, 1, 8).diag() @ V_.T  # (m, n), of known singular values
        values = torch.linalg.svdvals(library.orthogonalised(1000 * matrix))
        assert values.min() > 0.6 and values.max() < 1.3


def directions_stay(library):
    """U S V^T becomes U S' V^T: the same singular vectors."""
    U, V_ = (torch.linalg.qr(torch.randn(6, 6))[0] for _ in range(2))
    S = torch.tensor([1.0, 0.8, 0.6, 0.5, 0.4, 0.3])
    inner = U.T @ library.orthogonalised(U @ S.diag() @ V_.T) @ V_
    close(inner, inner.diag().diag(), rtol=0, atol=1e-3)


def steps_are_those_of_torch(library):
    """torch's computes in bfloat16, hence the tolerance: a fiftieth of the way."""
    generator = torch.Generator().manual_seed(3)
    for shape in ((24, 12), (12, 24)):
        ours, theirs = (torch.nn.Parameter(torch.zeros(shape)) for _ in range(2))
        optimizers = library.Muon([ours], lr=0.1), torch.optim.Muon([theirs], lr=0.1, weight_decay=0.0)
        for _ in range(4):
            ours.grad = torch.randn(shape, generator=generator)
            theirs.grad = ours.grad.clone()
            for optimizer in optimizers:
                optimizer.step()
        assert (ours - theirs).norm() < 0.02 * theirs.norm()


# ---------------------------------------------------------------- the race

TINY = {"vocab_size": V, "block_size": 16, "n_embd": 16, "n_head": 2, "n_layer": 2, "order": 2}


PARTS = torch.arange(400) // 100


def tiny(library, **more):
    torch.manual_seed(0)
    return library.SpeedrunGPT(library.SpeedrunConfig(**{**TINY, **more}), some_text(), PARTS)


def blocks_score_each_token_once(library):
    for n in (2, 5, 9, 10, 150):
        found = [yb.flatten() for _, yb in library.blocks(torch.arange(n), 4)]
        assert all(len(yb) for yb in found)
        assert torch.cat(found).tolist() == list(range(1, n))
        assert all((yb - xb == 1).all() and len(xb) <= 32 for xb, yb in library.blocks(torch.arange(n), 4))


def the_split_loss_is_the_mean_over_tokens(library):
    """Two whole blocks and a short one: weighted by their tokens, and without dropout."""
    model, ids = tiny(library, dropout=0.5), some_text(16 * 2 + 6)
    torch.nn.init.normal_(model.lm_head.weight)
    parts = [(ids[a:b], ids[a + 1 : b + 1]) for a, b in ((0, 16), (16, 32), (32, 37))]
    model.eval()
    expected = sum(model(x[None], y[None])[1].item() * len(x) for x, y in parts) / 37
    model.train()
    assert abs(library.split_loss(model, ids) - expected) < 1e-5
    assert model.training


def overlapping_windows_score_with_more_context(library):
    """17 to 24 from the window that begins at 8, 25 and 26 from the last one."""
    model, ids = tiny(library).eval(), some_text(16 + 8 + 2 + 1)
    torch.nn.init.normal_(model.lm_head.weight)
    with torch.no_grad():
        first = F.cross_entropy(model(ids[None, :16])[0][0], ids[1:17], reduction="sum")
        second = F.cross_entropy(model(ids[None, 8:24])[0][0, -8:], ids[17:25], reduction="sum")
        third = F.cross_entropy(model(ids[None, 10:26])[0][0, -2:], ids[25:27], reduction="sum")
    assert abs(library.strided_loss(model, ids, 8) - (first + second + third).item() / 26) < 1e-5


def the_cap_bounds_and_keeps_small_logits(library):
    logits = torch.tensor([-1e4, -0.1, 0.0, 0.1, 14.0, 1e4])
    capped = library.soft_capped(logits)
    close(capped[[0, -1]], torch.tensor([-15.0, 15.0]), rtol=0, atol=1e-5)
    close(capped[1:4], logits[1:4], rtol=0, atol=1e-4)
    assert (capped.diff() > 0).all()


def a_new_model_is_its_counts(library):
    model = tiny(library).eval()
    idx = some_text()[None, :16]
    close(model(idx)[0], model.prior(idx), rtol=0, atol=1e-6)


def the_part_is_left_out_where_it_is_told(library):
    """With `parts` the loss is that of honest counts, unless the ingredient is missing; without, of all."""
    idx, targets, parts = (a[None, 90:106] for a in (some_text(), some_text().roll(-1), PARTS.roll(-1)))
    model, naive = tiny(library), tiny(library, without=("leaving the part out",))
    honest = F.cross_entropy(model.prior(idx, parts)[0], targets[0])
    knowing = F.cross_entropy(model.prior(idx)[0], targets[0])
    close(model(idx, targets, parts)[1], honest, rtol=0, atol=1e-6)
    close(model(idx, targets)[1], knowing, rtol=0, atol=1e-6)
    close(naive(idx, targets, parts)[1], knowing, rtol=0, atol=1e-6)
    assert (honest - knowing).abs() > 1e-3


def only_what_is_counted_is_in_the_prior(library):
    """Of text and page, each left out: the prior of the other; both: all tokens alike."""
    idx = some_text(16, seed=1)[None]
    text, page = "counts of the text", "counts of the page"
    for without, prior in (
        ((text,), counts.CountedPrior(V, 2)),
        ((page,), counts.CountedPrior(V, 2, some_text(), page=False)),
        ((text, page), counts.CountedPrior(V, 2, page=False)),
    ):
        close(tiny(library, without=without).prior(idx), prior(idx), rtol=0, atol=1e-6)


def the_network_reads_the_counts(library):
    """Their hint reaches the features, scaled alike; without the ingredient it doesn't."""
    idx = some_text()[None, :16]
    hints = 100 * torch.randn(1, 16, V)
    for without, heard in (((), True), (("counts as input",), False)):
        model = tiny(library, without=without).eval()
        there = model.features(idx, hints)
        assert torch.equal(there, model.features(idx, torch.randn(1, 16, V))) != heard
        close(model.features(idx, 3 * hints + 1), there, rtol=0, atol=1e-3)


def trust_is_chosen_by_place(library):
    """One number multiplies the counts of a place, another those of the next, if the ingredient is there."""
    idx = some_text()[None, :16]
    for without, differs in (((), True), (("trust by place",), False)):
        model = tiny(library, without=without).eval()
        torch.nn.init.normal_(model.trust.weight)
        trust = model(idx)[0] / model.prior(idx)  # the network's own logits are 0
        close(trust, trust[..., :1].expand_as(trust), rtol=0, atol=1e-4)
        assert (trust.std() > 0.1) == differs


def noise_is_for_the_training_network(library):
    model, idx = tiny(library, noise=0.25), some_text()[None].expand(50, 400)
    wrong = (model.train().noised(idx) != idx).float().mean()
    assert abs(wrong - 0.25 * (V - 1) / V) < 0.01  # a fifth of the random ones hit the true one
    assert torch.equal(model.eval().noised(idx), idx)
    assert torch.equal(tiny(library, noise=0.0).train().noised(idx), idx)
    page, hints = idx[:1, :16], torch.zeros(1, 16, V)
    assert not torch.equal(model.train().features(page, hints), model.eval().features(page, hints))
    close(model.train()(page)[0], model.prior(page), rtol=0, atol=1e-6)  # the counts read the true ones


def ngrams_have_vectors_of_their_own(library):
    """By hand: 1 2 has row 7 of the first table; 0 1 2 has row 7 and 3 1 2 row 82 of the second."""
    ngrams = library.NgramEmbedding(V, 3, 8)
    idx = torch.tensor([[0, 1, 2, 3, 1, 2]])
    assert not ngrams(idx).any()
    for table in ngrams.tables:
        torch.nn.init.normal_(table.weight)
    pairs, threes = (table.weight for table in ngrams.tables)
    found = ngrams(idx)[0]
    close(found[2], pairs[7] + threes[7], rtol=0, atol=1e-6)
    close(found[5], pairs[7] + threes[82], rtol=0, atol=1e-6)
    long = library.NgramEmbedding(65, 4, 8)
    torch.nn.init.normal_(long.tables[2].weight)
    row = (65**4 - 1) % 65_521
    close(long(torch.full((1, 4), 64))[0, 3], long.tables[2].weight[row], rtol=0, atol=1e-6)


def the_network_reads_ngrams_with_the_noise(library):
    model, idx = tiny(library, ngrams=2, noise=0.5), some_text()[None, :16]
    torch.nn.init.zeros_(model.token_embedding_table.weight)
    hints = torch.zeros(1, 16, V)
    unheard = model.eval().features(idx, hints)
    torch.nn.init.normal_(model.ngrams.tables[0].weight)
    heard = model.features(idx, hints)
    assert not torch.equal(heard, unheard)
    assert not torch.equal(model.train().features(idx, hints), heard)


def chunks_keep_their_parts(library):
    text = torch.arange(400)
    xb, yb, parts = library.draw(text, PARTS, 64, 16)
    assert xb.shape == yb.shape == parts.shape == (64, 16)
    assert torch.equal(yb, xb + 1) and torch.equal(parts, PARTS[yb])
    assert len(xb[:, 0].unique()) > 32 and (xb.diff() == 1).all()


def the_network_is_causal(library):
    model = tiny(library, without=("zero start",)).eval()
    for weights in (model.lm_head.weight, model.trust.weight):
        torch.nn.init.normal_(weights)
    idx = some_text()[None, :16]
    changed = idx.clone()
    changed[0, 9] = (changed[0, 9] + 1) % V
    differs = (model(idx)[0] - model(changed)[0]).abs().amax(dim=-1)[0] > 1e-6
    assert not differs[:9].any() and differs[9]


def the_rate_rises_stays_and_falls_to_0(library):
    race = library.Race(max_iters=100, rising=0.1, falling=0.5)
    shares = [library.trapezoid(step, race) for step in range(101)]
    close(torch.tensor(shares[:10]), torch.arange(1, 11) / 10, rtol=0, atol=1e-6)
    assert set(shares[9:51]) == {1.0} and shares[100] == 0
    close(torch.tensor(shares[50:101]), torch.linspace(1, 0, 51), rtol=0, atol=1e-6)


def every_parameter_has_one_optimizer(library):
    model = tiny(library, ngrams=3)
    for race in (library.Race(), library.Race(muon_rate=0.0)):
        optimizers = library.make_optimizers(model, race)
        held = [id(p) for o in optimizers for group in o.param_groups for p in group["params"]]
        assert sorted(held) == sorted(id(p) for p in model.parameters())
        assert len(optimizers) == 2 + bool(race.muon_rate)
        rates = {id(p): group["lr"] for o in optimizers for group in o.param_groups for p in group["params"]}
        assert {rates[id(p)] for p in model.prior.parameters()} == {race.counts_rate}
        assert {rates[id(p)] for p in model.ngrams.parameters()} == {race.adam_rate}
        assert rates[id(model.body[0].ffwd[0].weight)] == (race.muon_rate or race.adam_rate)


def a_race_learns_what_counts_do_not_tell(library):
    """1 0 0 0 2 0 0 0 3 0 0 0 ...: what follows three zeros is known from four tokens before."""
    text = F.pad((torch.arange(200) % 4 + 1)[:, None], (0, 3)).flatten()
    torch.manual_seed(0)
    sizes = {**TINY, "n_layer": 1, "noise": 0.0, "without": ("counts of the page",)}
    parts = torch.arange(800) // 100
    model = library.SpeedrunGPT(library.SpeedrunConfig(**sizes), text, parts)
    losses = library.speedrun(model, text, parts, library.Race(max_iters=60, adam_rate=2e-2))
    assert len(losses) == 60
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


PROPERTIES = {
    counts: [
        contexts_are_numbered_by_their_digits,
        counts_are_those_of_the_text,
        what_never_occurs_has_no_counts,
        parts_are_counted_by_themselves,
        discounts_by_hand,
        interpolation_by_hand,
        without_counts_the_shorter_context_stands,
        the_page_counts_what_followed_earlier,
        the_page_is_its_own_row,
        the_prior_is_a_distribution,
        the_prior_by_hand,
        leaving_out_is_never_having_counted,
        longer_contexts_have_the_last_word,
        the_page_has_its_say,
    ],
    modern_block: [
        unit_vectors_have_mean_square_1,
        turning_is_relative,
        turning_keeps_lengths_and_tells_places_apart,
        speeds_fall_from_1,
        qk_norm_makes_the_size_of_weights_irrelevant,
        the_block_is_nothing_at_first,
        the_block_is_causal,
        the_order_of_the_past_matters,
        relu_is_squared,
    ],
    muon: [singular_values_come_near_1, directions_stay, steps_are_those_of_torch],
    speedrun: [
        blocks_score_each_token_once,
        the_split_loss_is_the_mean_over_tokens,
        overlapping_windows_score_with_more_context,
        the_cap_bounds_and_keeps_small_logits,
        a_new_model_is_its_counts,
        the_part_is_left_out_where_it_is_told,
        only_what_is_counted_is_in_the_prior,
        the_network_reads_the_counts,
        trust_is_chosen_by_place,
        noise_is_for_the_training_network,
        ngrams_have_vectors_of_their_own,
        the_network_reads_ngrams_with_the_noise,
        chunks_keep_their_parts,
        the_network_is_causal,
        the_rate_rises_stays_and_falls_to_0,
        every_parameter_has_one_optimizer,
        a_race_learns_what_counts_do_not_tell,
    ],
}


@pytest.mark.parametrize(
    ("library", "holds"), [(library, holds) for library, table in PROPERTIES.items() for holds in table]
)
def test_properties(library, holds):
    torch.manual_seed(0)
    holds(library)


def test_dev_is_to_the_training_split_what_val_is_to_the_text():
    """The same share is from a play that begins before, all the rest from one that is new."""
    text = load_corpus()
    n_train = int(0.9 * len(text))
    cut = speedrun.dev_start(text, n_train)
    shares = []
    for start, end in ((cut, n_train), (n_train, len(text))):
        known, new = [span for span in play_spans(text).values() if span.start < end and span.stop > start]
        assert known.start < start < new.start
        shares.append((known.stop - start) / (end - start))
    assert abs(shares[0] - shares[1]) < 0.01


def test_a_play_has_two_parts():
    text = load_corpus()
    parts = speedrun.play_parts(text)
    for i, play in enumerate(play_spans(text).values()):
        third = play.start + (play.stop - play.start) // 3
        assert set(parts[play.start : third].tolist()) == {2 * i}
        assert set(parts[third : play.stop].tolist()) == {2 * i + 1}


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, V - 1), min_size=8, max_size=60), st.integers(1, 4))
def test_the_prior_of_any_text_is_a_distribution_also_with_parts_left_out(ids, order):
    text, parts = torch.tensor(ids), torch.arange(len(ids)) // 5
    prior = counts.CountedPrior(V, order, text, parts)
    for probs in (prior(text[None, :-1]).exp(), prior(text[None, :-1], parts[None, 1:]).exp()):
        close(probs.sum(dim=-1), torch.ones(1, len(ids) - 1), rtol=0, atol=1e-5)
        assert probs.min() > 0


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 40), st.integers(0, 10**6))
def test_rotary_products_depend_on_the_distance_alone(i, j, shift, seed):
    q, k = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(seed))
    at = modern_block.rotary_angles(64, 16)
    here, there = (
        (modern_block.rotated(q, at[a : a + 1]) * modern_block.rotated(k, at[b : b + 1])).sum()
        for a, b in ((i, j), (i + shift, j + shift))
    )
    close(here, there, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_trains(name):
    config, race = RECIPES[name]
    sizes = {**TINY, "dropout": config.dropout, "noise": config.noise, "ngrams": config.ngrams}
    sizes["without"] = config.without
    text = some_text()
    model = speedrun.SpeedrunGPT(speedrun.SpeedrunConfig(**sizes), text, PARTS)
    small = {"batch_size": race.batch_size, "muon_rate": race.muon_rate, "falling": race.falling}
    losses = speedrun.speedrun(model, text, PARTS, speedrun.Race(max_iters=3, **small))
    assert all(map(math.isfinite, losses))


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"without has \['magic'\]; expected some of: counts of"):
        speedrun.SpeedrunConfig(without=("magic",))
    with pytest.raises(ValueError, match=r"noise is 1; expected a share from 0"):
        speedrun.SpeedrunConfig(noise=1)
    with pytest.raises(ValueError, match=r"order 11 makes 8.8e\+19 contexts; expected at most 9.2e\+18"):
        counts.CountedPrior(65, 11)(torch.zeros(1, 20, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"order 10 makes 1.3e\+19 contexts; expected at most 9.2e\+18"):
        counts.CountedPrior(65, 10, torch.zeros(20, dtype=torch.int64), torch.arange(20) // 2)
    with pytest.raises(ValueError, match="rows of 17 tokens; expected at most block_size = 16"):
        tiny(speedrun)(torch.zeros(1, 17, dtype=torch.int64))
    with pytest.raises(ValueError, match="stride is 17; expected 1 to block_size = 16"):
        speedrun.strided_loss(tiny(speedrun), some_text(), 17)
    with pytest.raises(ValueError, match=r"shape \(3,\); expected a matrix"):
        muon.Muon([torch.nn.Parameter(torch.zeros(3))])


# ---------------------------------------------------------------- planted faults are caught

DIGITS, COUNTS, NEVER, PARTED, HAND, MIXED, SHORTER, PAGE, ROWS, WHOLE, BY_HAND, LEFT_OUT, LONGER, SAY = (
    PROPERTIES[counts]
)
UNIT, RELATIVE, LENGTHS, SPEEDS, QK, NOTHING, CAUSAL_BLOCK, ORDER, SQUARE = PROPERTIES[modern_block]
NEAR_1, DIRECTIONS, TORCHS = PROPERTIES[muon]
(BLOCKS, MEAN, STRIDED, CAP, STARTS, PLAY, PRIOR, HINT, TRUST, NOISE, NGRAMS, READ,
 CHUNKS, CAUSAL, RATE, ONE, LEARNS) = PROPERTIES[speedrun]  # fmt: skip

FAULTS = {
    counts: [
        ("digits from the front", "vocab_size**back", "vocab_size**(n - 1 - back)", {DIGITS}),
        ("short contexts counted", "ids[:, : n - 1] = -1", "pass", {COUNTS, DIGITS}),
        ("the follower's follower", "(rows, text[n:])", "(rows, text[n - 1 : -1])",
         {BY_HAND, COUNTS, LONGER, SAY}),
        ("unknown takes a neighbour's row", "row.where(self.known[row] == ids, len(self.known))", "row",
         {COUNTS, LEFT_OUT, NEVER, PARTED}),
        ("the context's part", "parts[n:]", "parts[n - 1 : -1]", {LEFT_OUT, PARTED}),
        ("short contexts in a part", "contexts.where(contexts < 0, contexts + parts", "(contexts + parts",
         {PARTED}),
        ("discounts off by one", "(counts == 1, counts == 2, counts == 3, counts > 3)",
         "(counts == 0, counts == 1, counts == 2, counts > 2)", {BY_HAND, HAND, SAY, WHOLE}),
        ("5 is not more", "counts > 3)", "counts == 4)", {HAND, WHOLE}),
        ("shares, not amounts", "k * share * level", "share * level", {BY_HAND, HAND}),
        ("what is taken is lost", "(kept + taken * lower)", "kept", {BY_HAND, MIXED, WHOLE}),
        ("nothing seen, nothing expected", ".where(total > 0, lower)", "", {SHORTER, WHOLE}),
        ("the page knows what comes", ".tril(-1)", ".tril(0)", {PAGE}),
        ("the page, read to its end", ".tril(-1)", "", {PAGE}),
        ("the page forgets the last", "earlier[:, :, :-1] @ tokens[:, 1:]", "earlier @ tokens",
         {BY_HAND, PAGE, SAY}),
        ("short contexts on the page", " & (contexts >= 0)[:, None, :]", "", {PAGE}),
        ("one page for all rows", "@ tokens[:, 1:]", "@ tokens[:1, 1:]", {ROWS}),
        ("nothing taken from the counts", "kept, taken = counts - discounts,", "kept, taken = counts,",
         {BY_HAND}),
        ("the page's share lost", "taken = taken + self.PAGE_SHARE * page.sum(dim=-1, keepdim=True)", "pass",
         {BY_HAND, WHOLE}),
        ("page always on", "if self.page:", "if True:", {SAY}),
        ("page never on", "if self.page:", "if False:", {BY_HAND, SAY}),
        ("page weighed as text", "self.page_weights[n - 1].exp() * page_counts", "page_counts",
         {BY_HAND, SAY}),
        ("parts kept", "counts if parts is None else", "counts if True else", {LEFT_OUT}),
        ("shortest context last", "range(1, len(self.discounts) + 1)", "range(len(self.discounts), 0, -1)",
         {LONGER}),
        ("probabilities, not their logarithms", "return probs.log()", "return probs", {BY_HAND, WHOLE}),
    ],
    modern_block: [
        ("mean square of C", "F.rms_norm(x, (x.shape[-1],))", "F.normalize(x, dim=-1)", {UNIT}),
        ("all pairs at one speed", "torch.arange(0, hs, 2) / hs", "torch.zeros(hs // 2)", {SPEEDS}),
        ("turned and stretched", "a * sin + b * cos", "a * sin + b", {LENGTHS, RELATIVE}),
        ("no turn at all", "a * cos - b * sin, a * sin + b * cos", "a * cos + b * sin, a * sin + b * cos",
         {LENGTHS, RELATIVE}),
        ("positions counted from 1", "torch.arange(T)[:, None]", "torch.arange(1, T + 1)[:, None]",
         {LENGTHS, SPEEDS}),
        ("only queries turned", "for a in (q, k))", "if a is q else a for a in (q, k))", {ORDER}),
        ("queries not normed", "q, k = unit(q), unit(k)", "k = unit(k)", {QK}),
        ("the future seen", "is_causal=True", "is_causal=False", {CAUSAL_BLOCK}),
        ("ReLU alone", "F.relu(x).square()", "F.relu(x)", {SQUARE}),
        ("square alone", "F.relu(x).square()", "x.square()", {SQUARE}),
        ("attention not zero at first", "            nn.init.zeros_(self.sa.proj.weight)\n", "", {NOTHING}),
        ("feed-forward not zero at first", "            nn.init.zeros_(self.ffwd[2].weight)\n", "",
         {NOTHING}),
    ],
    muon: [
        ("not normed", "matrix / (matrix.norm() + 1e-7)", "matrix", {NEAR_1, TORCHS}),
        ("fifth power forgotten", " + 2.0315 * A @ A", "", {DIRECTIONS, NEAR_1, TORCHS}),
        ("tall stays turned", "return X.T if tall else X", "return X", {TORCHS}),
        ("element by element", "A = X @ X.T", "A = X * X", {DIRECTIONS, NEAR_1, TORCHS}),
        ("no momentum", "p.grad.lerp(velocity, group[\"momentum\"])", "p.grad", {TORCHS}),
        ("not Nesterov's", "p.grad.lerp(velocity, group[\"momentum\"])", "velocity", {TORCHS}),
        ("uphill", "alpha=-group", "alpha=group", {TORCHS}),
        ("tall as wide", " * max(1, p.shape[0] / p.shape[1]) ** 0.5", "", {TORCHS}),
    ],
    speedrun: [
        ("short block forgotten", "if whole < len(xs)", "if False", {BLOCKS, MEAN}),
        ("an empty block", "if whole < len(xs)", "if True", {BLOCKS}),
        ("targets not shifted", "ids[:-1].split(block_size)", "ids[1:].split(block_size)", {BLOCKS, MEAN}),
        ("mean of blocks", "* yb.numel()\n    return total / (len(ids) - 1)", "\n    return total / 3",
         {MEAN}),
        ("dropout on", "with eval_mode(model):\n        for xb", "if True:\n        for xb", {MEAN}),
        ("the end forgotten", ", stride), len(ids) - 1]", ", stride)]", {STRIDED}),
        ("old tokens scored", "logits[0, done - end :]", "logits[0, : end - done]", {STRIDED}),
        ("no cap", "cap * torch.tanh(logits / cap)", "logits", {CAP}),
        ("cap of 1", "cap * torch.tanh(logits / cap)", "cap * torch.tanh(logits)", {CAP}),
        ("head not zero", "(self.lm_head.weight, self.trust.weight)", "(self.trust.weight,)",
         {NOISE, PLAY, STARTS, TRUST}),
        ("counts trusted less", "nn.init.ones_(self.trust.bias)", "nn.init.constant_(self.trust.bias, 0.9)",
         {NOISE, PLAY, STARTS}),
        ("counts alone", "logits + trust * log_probs", "0 * logits + trust * log_probs", {LEARNS}),
        ("parts kept in training", "parts if self.prior.part_tables else None", "None", {PLAY}),
        ("parts always told apart", "config.has(\"leaving the part out\")", "True", {PLAY}),
        ("text always counted", "text if config.has(\"counts of the text\")", "text if True", {PRIOR}),
        ("page always counted", "config.has(\"counts of the page\"),", "True,", {PRIOR}),
        ("hint unheard", "x = x + self.hint(hints)", "pass", {HINT}),
        ("hint always heard", "if self.config.has(\"counts as input\")", "if True", {HINT}),
        ("hint not scaled", "F.layer_norm(log_probs.detach(), log_probs.shape[-1:])",
         "log_probs.detach() / 9",
         {HINT}),
        ("trust the same everywhere", "self.trust(x) if self.config.has(\"trust by place\") else", "",
         {TRUST}),
        ("trust always by place", "self.trust(x) if self.config.has(\"trust by place\") else self.trust.bias",
         "self.trust(x)", {TRUST}),
        ("noise in evaluation", "if not (self.training and self.config.noise)", "if not self.config.noise",
         {CAUSAL, HINT, MEAN, NOISE, STRIDED}),
        ("no noise", "read = self.noised(idx)", "read = idx", {NOISE, READ}),
        ("n-grams unheard", " + self.ngrams(read)", "", {READ}),
        ("n-grams without noise", "self.ngrams(read)", "self.ngrams(idx)", {READ}),
        ("pairs for all", "context_ids(idx, n, self.vocab_size)", "context_ids(idx, 2, self.vocab_size)",
         {NGRAMS}),
        ("n-grams not zero at first", "nn.init.zeros_(table.weight)", "pass", {NGRAMS}),
        ("rows past the end", "number % self.ROWS", "number", {NGRAMS, READ}),
        ("n-grams don't learn", "if ngrams:", "if False:", {ONE}),
        ("noise the wrong way round", ".where(wrong, idx)", ".where(~wrong, idx)", {NOISE}),
        ("parts of the inputs", "parts[there]", "parts[here]", {CHUNKS}),
        ("a short beginning alone", "torch.arange(len(text))", "torch.arange(block_size + 1)", {CHUNKS}),
        ("one rate for all", ", \"lr\": race.counts_rate", "", {ONE}),
        ("rate stays high", "return min(up, 1.0, down)", "return min(up, 1.0)", {RATE}),
        ("no rise", "return min(up, 1.0, down)", "return min(1.0, down)", {RATE}),
        ("matrices twice", "if id(p) not in chosen", "if True", {LEARNS, ONE}),
        ("no step", "            part.step()", "            pass", {LEARNS}),
        ("read backwards", "self.embed(read)", "self.embed(read.flip(1))",
         {CAUSAL, LEARNS}),
    ],
}  # fmt: skip

test_a_planted_fault_is_caught, test_every_property_catches_a_fault = fault_tests(
    {library: (properties, FAULTS[library]) for library, properties in PROPERTIES.items()}
)
