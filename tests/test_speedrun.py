"""Chapter 16c: the race. Properties, and planted faults that they catch."""

import math
from dataclasses import replace

import pytest
import torch
from faults import fault_tests, property_test
from texts import V, some_text
from torch.nn import functional as F

from lecture_lib import speedrun
from lecture_lib.counts import CountedPrior
from lecture_lib.course.experiments.races import ABLATION_STEPS, RACES, variants

close = torch.testing.assert_close
RECIPES = RACES | {(race, name): recipe for race in ABLATION_STEPS for name, recipe in variants(race).items()}

TINY = {"vocab_size": V, "block_size": 16, "n_embd": 16, "n_head": 2, "n_layer": 2, "order": 2}

PARTS = torch.arange(400) // 100


def tiny(library, **more):
    torch.manual_seed(0)
    return library.SpeedrunGPT(library.SpeedrunConfig(**{**TINY, **more}), some_text(), PARTS)


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
    model, naive = tiny(library), tiny(library, leave_part_out=False)
    honest = F.cross_entropy(model.prior(idx, parts)[0], targets[0])
    knowing = F.cross_entropy(model.prior(idx)[0], targets[0])
    close(model(idx, targets, parts)[1], honest, rtol=0, atol=1e-6)
    close(model(idx, targets)[1], knowing, rtol=0, atol=1e-6)
    close(naive(idx, targets, parts)[1], knowing, rtol=0, atol=1e-6)
    assert (honest - knowing).abs() > 1e-3


def only_what_is_counted_is_in_the_prior(library):
    """Of text and page, each left out: the prior of the other; both: all tokens alike."""
    idx = some_text(16, seed=1)[None]
    for text, page in ((False, True), (True, False), (False, False)):
        model = tiny(library, count_text=text, count_page=page)
        expected = CountedPrior(V, 2, some_text() if text else None, page=page)
        close(model.prior(idx), expected(idx), rtol=0, atol=1e-6)


def the_network_reads_the_counts(library):
    """Their hint reaches the features, scaled alike; without the ingredient it doesn't."""
    idx = some_text()[None, :16]
    hints = 100 * torch.randn(1, 16, V)
    for heard in (True, False):
        model = tiny(library, counts_as_input=heard).eval()
        there = model.features(idx, hints)
        assert torch.equal(there, model.features(idx, torch.randn(1, 16, V))) != heard
        close(model.features(idx, 3 * hints + 1), there, rtol=0, atol=1e-3)


def trust_is_chosen_by_place(library):
    """One number multiplies the counts of a place, another those of the next, if the ingredient is there."""
    idx = some_text()[None, :16]
    for differs in (True, False):
        model = tiny(library, trust_by_place=differs).eval()
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


def the_network_is_causal(library):
    model = tiny(library, zero_start=False).eval()
    for weights in (model.lm_head.weight, model.trust.weight):
        torch.nn.init.normal_(weights)
    idx = some_text()[None, :16]
    changed = idx.clone()
    changed[0, 9] = (changed[0, 9] + 1) % V
    differs = (model(idx)[0] - model(changed)[0]).abs().amax(dim=-1)[0] > 1e-6
    assert not differs[:9].any() and differs[9]


def the_rate_rises_stays_and_falls_to_0(library):
    race = library.SpeedrunTraining(max_iters=100, rising=0.1, falling=0.5)
    shares = [library.trapezoid(step, race) for step in range(101)]
    close(torch.tensor(shares[:10]), torch.arange(1, 11) / 10, rtol=0, atol=1e-6)
    assert set(shares[9:51]) == {1.0} and shares[100] == 0
    close(torch.tensor(shares[50:101]), torch.linspace(1, 0, 51), rtol=0, atol=1e-6)


def every_parameter_has_one_optimizer(library):
    model = tiny(library, ngrams=3)
    for training in (library.SpeedrunTraining(), library.SpeedrunTraining(muon_rate=0.0)):
        optimizers = library.make_optimizers(model, training)
        held = [id(p) for o in optimizers for group in o.param_groups for p in group["params"]]
        assert sorted(held) == sorted(id(p) for p in model.parameters())
        assert len(optimizers) == 2 + bool(training.muon_rate)
        rates = {id(p): group["lr"] for o in optimizers for group in o.param_groups for p in group["params"]}
        assert {rates[id(p)] for p in model.prior.parameters()} == {training.counts_rate}
        assert {rates[id(p)] for p in model.ngrams.parameters()} == {training.adam_rate}
        assert rates[id(model.body[0].ffwd[0].weight)] == (training.muon_rate or training.adam_rate)


def a_race_learns_what_counts_do_not_tell(library):
    """1 0 0 0 2 0 0 0 3 0 0 0 ...: what follows three zeros is known from four tokens before."""
    text = F.pad((torch.arange(200) % 4 + 1)[:, None], (0, 3)).flatten()
    torch.manual_seed(0)
    sizes = {**TINY, "n_layer": 1, "noise": 0.0, "count_page": False}
    parts = torch.arange(800) // 100
    model = library.SpeedrunGPT(library.SpeedrunConfig(**sizes), text, parts)
    losses = library.speedrun(model, text, parts, library.SpeedrunTraining(max_iters=60, adam_rate=2e-2))
    assert len(losses) == 60
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


PROPERTIES = [
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
    the_network_is_causal,
    the_rate_rises_stays_and_falls_to_0,
    every_parameter_has_one_optimizer,
    a_race_learns_what_counts_do_not_tell,
]


test_properties = property_test({speedrun: PROPERTIES})


@pytest.mark.parametrize("name", list(RECIPES), ids=str)
def test_every_recipe_trains(name):
    config, training = RECIPES[name]
    text = some_text()
    model = speedrun.SpeedrunGPT(replace(config, **TINY), text, PARTS)
    losses = speedrun.speedrun(model, text, PARTS, replace(training, max_iters=3))
    assert all(map(math.isfinite, losses))


def test_errors_name_what_is_wrong():
    with pytest.raises(TypeError, match="unexpected keyword argument 'magic'"):
        speedrun.SpeedrunConfig(magic=False)
    with pytest.raises(ValueError, match=r"noise is 1; expected a share from 0"):
        speedrun.SpeedrunConfig(noise=1)
    with pytest.raises(ValueError, match="rows of 17 tokens; expected at most block_size = 16"):
        tiny(speedrun)(torch.zeros(1, 17, dtype=torch.int64))
    with pytest.raises(ValueError, match="stride is 17; expected 1 to block_size = 16"):
        speedrun.strided_loss(tiny(speedrun), some_text(), 17)


# ---------------------------------------------------------------- planted faults are caught

(STRIDED, CAP, STARTS, PLAY, PRIOR, HINT, TRUST, NOISE, NGRAMS, READ,
 CAUSAL, RATE, ONE, LEARNS) = PROPERTIES  # fmt: skip

FAULTS = [
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
    ("parts always told apart", "parts if config.leave_part_out", "parts if True", {PLAY}),
    ("text always counted", "text if config.count_text", "text if True", {PRIOR}),
    ("page always counted", "page=config.count_page", "page=True", {PRIOR}),
    ("hint unheard", "x = x + self.hint(hints)", "pass", {HINT}),
    ("hint always heard", "if self.config.counts_as_input", "if True", {HINT}),
    ("hint not scaled", "F.layer_norm(log_probs.detach(), log_probs.shape[-1:])",
     "log_probs.detach() / 9",
     {HINT}),
    ("trust the same everywhere", "self.trust(x) if self.config.trust_by_place else", "",
     {TRUST}),
    ("trust always by place", "self.trust(x) if self.config.trust_by_place else self.trust.bias",
     "self.trust(x)", {TRUST}),
    ("noise in evaluation", "if not (self.training and self.config.noise)", "if not self.config.noise",
     {CAUSAL, HINT, NOISE, STRIDED}),
    ("no noise", "read = self.noised(idx)", "read = idx", {NOISE, READ}),
    ("n-grams unheard", " + self.ngrams(read)", "", {READ}),
    ("n-grams without noise", "self.ngrams(read)", "self.ngrams(idx)", {READ}),
    ("pairs for all", "context_ids(idx, n,", "context_ids(idx, 2,", {NGRAMS}),
    ("n-grams not zero at first", "nn.init.zeros_(table.weight)", "pass", {NGRAMS}),
    ("rows past the end", " % self.ROWS", "", {NGRAMS, READ}),
    ("n-grams don't learn", "if ngrams:", "if False:", {ONE}),
    ("noise the wrong way round", ".where(wrong, idx)", ".where(~wrong, idx)", {NOISE}),
    ("one rate for all", ", \"lr\": training.counts_rate", "", {ONE}),
    ("rate stays high", "return min(up, 1.0, down)", "return min(up, 1.0)", {RATE}),
    ("no rise", "return min(up, 1.0, down)", "return min(1.0, down)", {RATE}),
    ("matrices twice", "if id(p) not in chosen", "if True", {LEARNS, ONE}),
    ("no step", "            stepper.step()", "            pass", {LEARNS}),
    ("read backwards", "self.embed(read)", "self.embed(read.flip(1))",
     {CAUSAL, LEARNS}),
]  # fmt: skip

test_a_planted_fault_is_caught, test_every_property_catches_a_fault = fault_tests(
    {speedrun: (PROPERTIES, FAULTS)}
)
