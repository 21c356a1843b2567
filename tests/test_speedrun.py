"""The race, chapter 16c."""

import math
from dataclasses import replace

import pytest
import torch
from kit import Suite, assert_causal, close, raises, refusals, seeded, suite_tests
from texts import V, some_text
from torch import nn
from torch.nn import functional as F

from lecture_lib import speedrun
from lecture_lib.counts import CountedPrior
from lecture_lib.course.experiments.races import ABLATION_STEPS, RACES, variants
from lecture_lib.modern_block import ModernBlock

RECIPES = RACES | {(race, name): recipe for race in ABLATION_STEPS for name, recipe in variants(race).items()}
TINY = {"vocab_size": V, "block_size": 16, "n_embd": 16, "n_head": 2, "n_layer": 2, "order": 2}
PARTS = torch.arange(400) // 100
PAGE = some_text()[None, :16]  # (1, 16)

race = Suite(speedrun)


def tiny(library, **more):
    config = library.SpeedrunConfig(**{**TINY, **more})
    return seeded(library.SpeedrunGPT, config, some_text(), PARTS, seed=0)


@race.holds
def the_cap_bounds_and_keeps_small_logits(library):
    logits = torch.tensor([-1e4, -0.1, 0.0, 0.1, 14.0, 1e4])
    capped = library.soft_capped(logits)
    close(capped[[0, -1]], torch.tensor([-15.0, 15.0]), atol=1e-5)
    close(capped[1:4], logits[1:4], atol=1e-4)
    assert (capped.diff() > 0).all()


@race.holds
def a_new_model_is_its_counts(library):
    model = tiny(library).eval()
    close(model(PAGE)[0], model.prior(PAGE), atol=1e-6)


@race.holds
def the_part_is_left_out_where_it_is_told(library):
    """With `parts` the loss is that of honest counts, unless the ingredient is missing; without, of all."""
    idx, targets, parts = (a[None, 90:106] for a in (some_text(), some_text().roll(-1), PARTS.roll(-1)))
    model, naive = tiny(library), tiny(library, leave_part_out=False)
    honest = F.cross_entropy(model.prior(idx, parts)[0], targets[0])
    knowing = F.cross_entropy(model.prior(idx)[0], targets[0])
    close(model(idx, targets, parts)[1], honest, atol=1e-6)
    close(model(idx, targets)[1], knowing, atol=1e-6)
    close(naive(idx, targets, parts)[1], knowing, atol=1e-6)
    assert (honest - knowing).abs() > 1e-3


@race.holds
def only_what_is_counted_is_in_the_prior(library):
    """Of text and page, each left out: the prior of the other; both: all tokens alike."""
    idx = some_text(16, seed=1)[None]
    for text, page in ((False, True), (True, False), (False, False)):
        model = tiny(library, count_text=text, count_page=page)
        expected = CountedPrior(V, 2, some_text() if text else None, page=page)
        close(model.prior(idx), expected(idx), atol=1e-6)


@race.holds
def the_network_reads_the_counts(library):
    """Their hint reaches the features, scaled alike; without the ingredient it doesn't."""
    hints = 100 * torch.randn(1, 16, V)
    for heard in (True, False):
        model = tiny(library, counts_as_input=heard).eval()
        there = model.features(PAGE, hints)
        assert torch.equal(there, model.features(PAGE, torch.randn(1, 16, V))) != heard
        close(model.features(PAGE, 3 * hints + 1), there, atol=1e-3)


@race.holds
def trust_is_chosen_by_place(library):
    """One number multiplies the counts of a place, another those of the next, if the ingredient is there."""
    for by_place in (True, False):
        model = tiny(library, trust_by_place=by_place).eval()
        nn.init.normal_(model.trust.weight)
        trust = model(PAGE)[0] / model.prior(PAGE)  # the network's own logits are 0
        close(trust, trust[..., :1].expand_as(trust), atol=1e-4)
        assert (trust.std() > 0.1) == by_place


@race.holds
def noise_is_for_the_training_network(library):
    model, idx = tiny(library, noise=0.25), some_text()[None].expand(50, 400)
    wrong = (model.train().noised(idx) != idx).float().mean()
    assert abs(wrong - 0.25 * (V - 1) / V) < 0.01  # a fifth of the random ones hit the true one
    assert torch.equal(model.eval().noised(idx), idx)
    assert torch.equal(tiny(library, noise=0.0).train().noised(idx), idx)
    hints = torch.zeros(1, 16, V)
    assert not torch.equal(model.train().features(PAGE, hints), model.eval().features(PAGE, hints))
    close(model.train()(PAGE)[0], model.prior(PAGE), atol=1e-6)  # the counts read the true ones


@race.holds
def ngrams_have_vectors_of_their_own(library):
    """By hand: 1 2 has row 7 of the first table; 0 1 2 has row 7 and 3 1 2 row 82 of the second."""
    ngrams = library.NgramEmbedding(V, 3, 8)
    idx = torch.tensor([[0, 1, 2, 3, 1, 2]])
    assert torch.equal(ngrams(idx), torch.zeros(1, 6, 8))
    for table in ngrams.tables:
        nn.init.normal_(table.weight)
    pairs, threes = (table.weight for table in ngrams.tables)
    found = ngrams(idx)[0]
    close(found[2], pairs[7] + threes[7], atol=1e-6)
    close(found[5], pairs[7] + threes[82], atol=1e-6)
    long = library.NgramEmbedding(65, 4, 8)
    nn.init.normal_(long.tables[2].weight)
    row = (65**4 - 1) % 65_521
    close(long(torch.full((1, 4), 64))[0, 3], long.tables[2].weight[row], atol=1e-6)
    assert torch.equal(library.NgramEmbedding(V, 1, 8)(idx), torch.zeros(1, 6, 8))  # no n-grams, no vectors


@race.holds
def the_network_reads_ngrams_with_the_noise(library):
    model, hints = tiny(library, ngrams=2, noise=0.5), torch.zeros(1, 16, V)
    nn.init.zeros_(model.token_embedding_table.weight)
    unheard = model.eval().features(PAGE, hints)
    nn.init.normal_(model.ngrams.tables[0].weight)
    heard = model.features(PAGE, hints)
    assert not torch.equal(heard, unheard)
    assert not torch.equal(model.train().features(PAGE, hints), heard)


@race.holds
def the_network_is_causal(library):
    model = tiny(library, zero_start=False).eval()
    for weights in (model.lm_head.weight, model.trust.weight):
        nn.init.normal_(weights)
    assert_causal(lambda idx: model(idx)[0], PAGE, atol=1e-5)


@race.holds
def the_blocks_are_as_configured(library):
    x = 3 * torch.randn(1, 16, 16)
    assert torch.equal(tiny(library).body(x), x) and tiny(library).position_embedding_table is None
    for left_out in ({"rotary": False}, {"qk_norm": False}, {"squared_relu": False}):
        model = tiny(library, **left_out, zero_start=False)
        block = ModernBlock(model.config, **left_out)
        block.load_state_dict(model.body[0].state_dict())
        assert torch.equal(model.body[0](x), block(x))


@race.holds
def the_rate_rises_stays_and_falls_to_0(library):
    training = library.SpeedrunTraining(max_iters=100, rising=0.1, falling=0.5)
    shares = [library.trapezoid(step, training) for step in range(101)]
    close(torch.tensor(shares[:10]), torch.arange(1, 11) / 10, atol=1e-6)
    assert set(shares[9:51]) == {1.0} and shares[100] == 0
    close(torch.tensor(shares[50:101]), torch.linspace(1, 0, 51), atol=1e-6)


@race.holds
def every_parameter_has_one_optimizer(library):
    model = tiny(library, ngrams=3)
    for training in (library.SpeedrunTraining(), library.SpeedrunTraining(muon_rate=0.0)):
        optimizers = library.make_optimizers(model, training)
        held = [(id(p), group["lr"]) for o in optimizers for group in o.param_groups for p in group["params"]]
        assert sorted(p for p, _ in held) == sorted(id(p) for p in model.parameters())
        assert len(optimizers) == 2 + bool(training.muon_rate)
        rates = dict(held)
        assert {rates[id(p)] for p in model.prior.parameters()} == {training.counts_rate}
        assert {rates[id(p)] for p in model.ngrams.parameters()} == {training.adam_rate}
        assert rates[id(model.body[0].ffwd[0].weight)] == (training.muon_rate or training.adam_rate)


@race.holds
def a_race_learns_what_counts_do_not_tell(library):
    """1 0 0 0 2 0 0 0 3 0 0 0 ...: what follows three zeros is known from four tokens before."""
    text = F.pad((torch.arange(200) % 4 + 1)[:, None], (0, 3)).flatten()
    parts = torch.arange(800) // 100
    config = library.SpeedrunConfig(**{**TINY, "n_layer": 1}, noise=0.0, count_page=False)
    model = library.SpeedrunGPT(config, text, parts)
    losses = library.speedrun(model, text, parts, library.SpeedrunTraining(max_iters=60, adam_rate=2e-2))
    assert len(losses) == 60
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


@pytest.mark.parametrize("name", list(RECIPES), ids=str)
def test_every_recipe_trains(name):
    config, training = RECIPES[name]
    text = some_text()
    model = speedrun.SpeedrunGPT(replace(config, **TINY), text, PARTS)
    losses = speedrun.speedrun(model, text, PARTS, replace(training, max_iters=3))
    assert all(map(math.isfinite, losses))


def test_a_model_to_load_counts_the_training_split_again(monkeypatch):
    monkeypatch.setattr(speedrun, "load_splits", lambda: (None, {"train": some_text(), "val": PAGE[0]}))
    model, recounted = tiny(speedrun), speedrun.recounted_speedrun(speedrun.SpeedrunConfig(**TINY))
    recounted.load_state_dict(model.state_dict())
    close(recounted.eval()(PAGE)[0], model.eval()(PAGE)[0])


test_what_is_refused = refusals(
    (TypeError, "unexpected keyword argument 'rotary_positions'",
     lambda: speedrun.SpeedrunConfig(rotary_positions=False)),
    ("noise is 1; expected a share from 0", lambda: speedrun.SpeedrunConfig(noise=1)),
)  # fmt: skip

race.faults = [
    ("no cap", "cap * torch.tanh(logits / cap)", "logits", the_cap_bounds_and_keeps_small_logits),
    ("cap of 1", "torch.tanh(logits / cap)", "torch.tanh(logits)", the_cap_bounds_and_keeps_small_logits),
    ("head not zero", "(self.lm_head.weight, self.trust.weight)", "(self.trust.weight,)",
     a_new_model_is_its_counts),
    ("counts trusted less", "nn.init.ones_(self.trust.bias)", "nn.init.constant_(self.trust.bias, 0.9)",
     a_new_model_is_its_counts),
    ("counts alone", "logits + trust * log_probs", "0 * logits + trust * log_probs",
     a_race_learns_what_counts_do_not_tell),
    ("parts kept in training", "parts if self.prior.part_tables else None", "None",
     the_part_is_left_out_where_it_is_told),
    ("parts always told apart", "parts if config.leave_part_out", "parts if True",
     the_part_is_left_out_where_it_is_told),
    ("text always counted", "text if config.count_text", "text if True",
     only_what_is_counted_is_in_the_prior),
    ("page always counted", "page=config.count_page", "page=True", only_what_is_counted_is_in_the_prior),
    ("hint unheard", "x = x + self.hint(hints)", "pass", the_network_reads_the_counts),
    ("hint always heard", "if self.config.counts_as_input", "if True", the_network_reads_the_counts),
    ("hint not scaled", "F.layer_norm(log_probs.detach(), log_probs.shape[-1:])", "log_probs.detach() / 9",
     the_network_reads_the_counts),
    ("trust the same everywhere", "self.trust(x) if self.config.trust_by_place else", "",
     trust_is_chosen_by_place),
    ("trust always by place", "if self.config.trust_by_place", "if True", trust_is_chosen_by_place),
    ("noise in evaluation", "if not (self.training and self.config.noise)", "if not self.config.noise",
     noise_is_for_the_training_network),
    ("no noise", "read = self.noised(idx)", "read = idx", noise_is_for_the_training_network),
    ("n-grams unheard", " + self.ngrams(read)", "", the_network_reads_ngrams_with_the_noise),
    ("n-grams without noise", "self.ngrams(read)", "self.ngrams(idx)",
     the_network_reads_ngrams_with_the_noise),
    ("pairs for all", "context_ids(idx, n,", "context_ids(idx, 2,", ngrams_have_vectors_of_their_own),
    ("n-grams not zero at first", "nn.init.zeros_(table.weight)", "pass", ngrams_have_vectors_of_their_own),
    ("rows past the end", " % self.ROWS", "", raises(IndexError, ngrams_have_vectors_of_their_own)),
    ("n-grams don't learn", "if ngrams:", "if False:", every_parameter_has_one_optimizer),
    ("noise the wrong way round", ".where(wrong, idx)", ".where(~wrong, idx)",
     noise_is_for_the_training_network),
    ("one rate for all", ", \"lr\": training.counts_rate", "", every_parameter_has_one_optimizer),
    ("rate stays high", "min(up, 1.0, down)", "min(up, 1.0)", the_rate_rises_stays_and_falls_to_0),
    ("no rise", "min(up, 1.0, down)", "min(1.0, down)", the_rate_rises_stays_and_falls_to_0),
    ("matrices twice", "if id(p) not in chosen", "if True",
     raises(ValueError, every_parameter_has_one_optimizer)),
    ("no step", "stepper.step()", "pass", a_race_learns_what_counts_do_not_tell),
    ("read backwards", "self.embed(read)", "self.embed(read.flip(1))", the_network_is_causal),
    ("choices mixed up", "config.rotary, config.qk_norm", "config.qk_norm, config.rotary",
     the_blocks_are_as_configured),
    ("positions twice", "self.position_embedding_table = None", "pass", the_blocks_are_as_configured),
]  # fmt: skip

test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(race)
