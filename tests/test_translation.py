"""Translating number words, chapter 12b: data, decoding, judging, training."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from kit import Suite, close, draw_ids, refusals, seeded, suite_tests
from torch import nn
from torch.nn import functional as F

from lecture_lib import translation
from lecture_lib.encoder_decoder import EncoderDecoder, TranslatorConfig
from lecture_lib.number_words import LARGEST_NUMBER, number_words, split_numbers
from lecture_lib.sequences import END, PAD, START, MarkedTokenizer, encode_sources, encode_targets, padded

SRC_VOCAB, TGT_VOCAB, BLOCK = 8, 6, 5

translator = Suite(translation, N=7, seed=40)


def writer(seed):
    """A small model with strong random opinions, in eval mode."""
    config = TranslatorConfig(SRC_VOCAB, TGT_VOCAB, BLOCK, n_embd=8, n_head=2, n_layer=1)
    model = seeded(EncoderDecoder, config, seed=seed).double().eval()
    for half in (model.encoder, model.decoder):
        half.embed.positions = half.embed.positions.double()
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data *= 2.5
    model.decoder.embed.tokens.weight.data *= 0.2  # so that the source matters more than the last letter
    model.decoder.lm_head.bias.data += torch.tensor([-9.0, -9.0, 1.0, 0.0, 0.0, 0.0])  # some texts end early
    return model


def sources(N, seed):
    """Sources (N, S) of different lengths, the longest first."""
    lengths = [max(1, BLOCK - 1 - n % 4) for n in range(N)]
    rows = 3 + draw_ids(N, BLOCK, vocab_size=SRC_VOCAB - 3, seed=seed)
    return padded([[*row[:length], END] for row, length in zip(rows.tolist(), lengths, strict=True)])


def by_hand(model, src):
    """Greedy decoding of one source, without its padding, one token at a time: ids from <start> on."""
    ids = [START]
    while ids[-1] != END and len(ids) <= BLOCK:
        ids.append(model(src[src != PAD][None], torch.tensor([ids]))[0, -1].argmax().item())
    return ids


def log_probability(model, src, ids):
    logits = model(src[None], torch.tensor([ids[:-1]]))[0]  # (T, vocab)
    return sum(F.log_softmax(logits, -1)[t, i].item() for t, i in enumerate(ids[1:]))


def real(ids):
    """Without the padding after <end>."""
    return ids[: ids.index(END) + 1] if END in ids else ids


# ---------------------------------------------------------------- decoding


@translator.holds
def greedy_is_one_token_at_a_time(library, N, seed):
    """For a batch with padding, what each source gives alone; from <start> to <end>, then padding only."""
    model, src = writer(seed), sources(N, seed)
    for row, ids in zip(src, library.translate(model, src).tolist(), strict=True):
        expected = by_hand(model, row)
        assert ids[: len(expected)] == expected and set(ids[len(expected) :]) <= {PAD}


@translator.holds
def greedy_reads_the_source_once(library, N, seed):
    model, calls = writer(seed), []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    library.translate(model, sources(N, seed))
    assert calls == [1]


@translator.holds
def beam_of_one_is_greedy(library, N, seed):
    model = writer(seed)
    for row in sources(N, seed):
        ((ids, score),) = library.beam_search(model, row[None], 1)
        assert ids == by_hand(model, row)
        assert math.isclose(score, log_probability(model, row, ids), abs_tol=1e-5)


@translator.holds
def wide_beam_finds_the_likeliest_of_all(library, N, seed):
    """Against every text of BLOCK tokens that there is, and with the probability that the model gives it."""
    model, row = writer(seed), sources(N, seed)[0]
    texts = [
        [START, *text]
        for T in range(1, BLOCK + 1)
        for text in itertools.product(range(TGT_VOCAB), repeat=T)
        if END not in text[:-1] and (text[-1] == END or T == BLOCK)
    ]
    whole = padded(texts)  # (number of texts, BLOCK + 1)
    logs = F.log_softmax(model(row[None].expand(len(texts), -1), whole[:, :-1]), dim=-1)
    each = logs.gather(2, whole[:, 1:, None])[..., 0]  # (number of texts, BLOCK)
    there = torch.arange(1, BLOCK + 1) < torch.tensor([[len(text)] for text in texts])
    scores = each.where(there, 0.0).sum(dim=1)
    best = scores.argmax().item()
    ids, score = library.beam_search(model, row[None], 2_000)[0]
    assert real(ids) == texts[best] and math.isclose(score, scores[best].item(), abs_tol=1e-5)


@translator.holds
def beams_are_sorted_different_and_true(library, N, seed):
    model = writer(seed)
    for row in sources(N, seed):
        beams = library.beam_search(model, row[None], 3)
        scores = [score for _, score in beams]
        assert len(beams) == 3 and scores == sorted(scores, reverse=True)
        assert len({tuple(ids) for ids, _ in beams}) == 3
        for ids, score in beams:
            assert set(ids[len(real(ids)) :]) <= {PAD}
            assert math.isclose(score, log_probability(model, row, real(ids)), abs_tol=1e-5)


@translator.holds
def beam_leaves_the_garden_path(library):
    """A (0.6) leads to texts of at most 0.24, B (0.4) to one of 0.4: a beam of two finds B."""
    follows = {START: {3: 0.6, 4: 0.4}, 3: {3: 0.3, 4: 0.3, END: 0.4}, 4: {END: 1.0}, END: {}, PAD: {}}

    def decoder(idx, *_):
        rows = [[follows[last].get(i, 0.0) + 1e-9 for i in range(5)] for last in idx[:, -1].tolist()]
        return torch.tensor(rows).log()[:, None]

    config, src = SimpleNamespace(block_size=6), torch.ones(1, 1, dtype=torch.long)
    toy = SimpleNamespace(config=config, decoder=decoder, encoder=lambda src: src[..., None])
    for width, second, p in ((1, 3, 0.24), (2, 4, 0.4)):
        ids, score = library.beam_search(toy, src, width)[0]
        assert ids[1] == second and math.isclose(math.exp(score), p, rel_tol=1e-4)


# ---------------------------------------------------------------- pairs and judging


def some_pairs(library, model, N, seed):
    """Targets that the model writes itself, some changed or cut short; and which of them it would write."""
    src, targets, right = sources(N, seed), [], []
    for n, row in enumerate(src):
        ids = by_hand(model, row)
        if n % 3 == 1 and len(ids) > 2:
            ids = [*ids[:2], END]
        if n % 3 == 2:
            ids[len(ids) // 2] = 3 + (ids[len(ids) // 2] == 3)
        targets.append(ids)
        right.append(ids == by_hand(model, row))
    order = (src != PAD).sum(dim=1).argsort(stable=True)
    return library.TranslationPairs(src, padded(targets)), [right[i] for i in order.tolist()]


@translator.holds
def judges_as_greedy_decoding_would(library, N, seed):
    model = writer(seed)
    pairs, right = some_pairs(library, model, N, seed)
    assert library.evaluate_pairs(model, pairs)[1].tolist() == right


@translator.holds
def judges_the_mean_loss_of_all_tokens(library, seed):
    """Over more pairs than go through the model at a time."""
    model, src = writer(seed), sources(150, seed)
    tgt = padded([[START, *row[row != PAD].tolist()[:-1], END] for row in src.clamp(max=TGT_VOCAB - 1)])
    pairs = library.TranslationPairs(src, tgt)
    logits, targets = model(pairs.src, pairs.tgt[:, :-1]), pairs.tgt[:, 1:]
    each = F.cross_entropy(logits[targets != PAD], targets[targets != PAD])
    assert math.isclose(library.evaluate_pairs(model, pairs)[0], each.item(), abs_tol=1e-8)


@translator.holds
def judging_leaves_the_mode(library, N, seed):
    model, modes = writer(seed), []
    pairs, _ = some_pairs(library, model, N, seed)
    model.train().register_forward_hook(lambda *_: modes.append(model.training))
    library.evaluate_pairs(model, pairs)
    assert model.training and not any(modes)


@translator.holds
def pairs_stay_together_shortest_first(library, N, seed):
    src = sources(N, seed)
    pairs = library.TranslationPairs(src, src + 100 * (src != PAD))  # a target tells its source
    assert ((pairs.src != PAD).sum(dim=1).diff() >= 0).all()
    assert sorted(pairs.src.tolist()) == sorted(src.tolist())
    for _ in range(5):
        drawn, targets = pairs.draw(2)
        assert len(drawn) == min(2, N) and torch.equal(targets, drawn + 100 * (drawn != PAD))


@translator.holds
def draws_neighbours_from_everywhere(library):
    """Of 40 pairs, two in a window of 32; no pair is drawn much less often than another."""
    src = padded([[*([3] * n), END] for n in range(40)])
    pairs = library.TranslationPairs(src, src)
    lengths = torch.stack([(pairs.draw(2)[0] == 3).sum(dim=1) for _ in range(4000)])  # (4000, 2)
    drawn = lengths.flatten().bincount(minlength=40)
    assert drawn.min() > 0.2 * drawn.max()  # the ends of the list, too; they get 0.4 of the rest
    assert lengths.diff(dim=1).abs().max() < 32


@translator.holds
def trims_padding_alone(library, N, seed):
    src = sources(N, seed)
    assert torch.equal(library.trim_padding(F.pad(src, (0, 4), value=PAD)), src)


# ---------------------------------------------------------------- training


class Column(nn.Module):
    """Logits that depend on the place alone: what is taught can be read off."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(BLOCK, TGT_VOCAB))
        self.heard = []

    def forward(self, src, idx):
        self.heard.append(idx)
        return self.logits[: idx.shape[1]].expand(len(idx), -1, -1)


def trained(library, src, tgt, max_iters):
    """A `Column` after some steps on all pairs at once; the pairs; the history."""
    model, pairs = Column(), library.TranslationPairs(src, tgt)
    history = library.train_translator(model, {"train": pairs, "val": pairs}, len(src), max_iters, 0.1)
    return model, pairs, history


@translator.holds
def learns_what_comes_next(library):
    """Input: <start> and the text. Target: the text and <end>. Places behind the end are taught nothing."""
    tgt = F.pad(padded([[START, 5, 3, END]] * 2), (0, 2), value=PAD)
    model, _, history = trained(library, padded([[3, END], [4, END]]), tgt, 120)
    assert all(idx.tolist() == [[START, 5, 3]] * 2 for idx in model.heard)
    assert model.logits.argmax(dim=1).tolist()[:3] == [5, 3, END]
    assert (model.logits[3:] == 0).all()
    assert history.exact[0] == 0 and history.exact[-1] == 1 and history.val[-1] < 0.5 < history.val[0]


@translator.holds
def history_tells_what_was_judged(library):
    """Ten times and at the end, of the model as it then was."""
    model, pairs, history = trained(library, padded([[3, END]]), padded([[START, 5, END]]), 25)
    assert history.steps == [*range(0, 25, 2), 25]
    assert trained(library, pairs.src, pairs.tgt, 20)[2].steps == [*range(0, 20, 2), 20]
    assert len(history.train) == len(history.val) == len(history.exact) == 14
    assert math.isclose(history.val[0], math.log(TGT_VOCAB), abs_tol=1e-6)
    assert math.isclose(history.val[-1], library.evaluate_pairs(model, pairs)[0], abs_tol=1e-6)


@translator.holds
def steps_are_those_of_adamw(library):
    """The same numbers from a loop written out here."""
    src, tgt, by_hand = padded([[3, END]]), padded([[START, 5, 4, END]]), Column()
    optimizer = torch.optim.AdamW(by_hand.parameters(), betas=(0.9, 0.98))
    for step in range(30):
        optimizer.param_groups[0]["lr"] = 0.1 * (step + 1) / 100 * 0.5 * (1 + math.cos(math.pi * step / 30))
        optimizer.zero_grad()
        F.cross_entropy(by_hand(src, tgt[:, :-1])[0], tgt[0, 1:]).backward()
        nn.utils.clip_grad_norm_(by_hand.parameters(), 1.0)
        optimizer.step()
    close(trained(library, src, tgt, 30)[0].logits, by_hand.logits, atol=1e-5)


@translator.holds
def rate_rises_and_falls(library):
    rates = [library.rate_share(step, 1000) for step in range(1001)]
    peak = rates.index(max(rates))
    assert 90 <= peak <= 110 and 0.9 < max(rates) <= 1 and rates[0] < 0.02 and abs(rates[-1]) < 1e-9
    rising, falling = rates[:peak], rates[peak:]
    assert rising == sorted(rising) and falling == sorted(falling, reverse=True)


test_at_any_size = translator.at_any_size(5, N=range(1, 8), seed=range(100))


def test_the_writers_texts_differ_and_end_early_or_never():
    """The properties above are tested on something that isn't trivial."""
    N, seed = translator.given.values()
    texts = [tuple(by_hand(writer(seed), row)) for row in sources(N, seed)]
    assert len(set(texts)) > 2 and any(text[-1] == END for text in texts)


# ---------------------------------------------------------------- number words, marks


def test_number_words():
    assert number_words(97, "fr") == "quatre-vingt-dix-sept"
    assert number_words(1_001, "en") == "one thousand and one"
    assert number_words(0, "en") == "zero"


@pytest.mark.parametrize("sizes", [(60, 20, 20), (1, 1, 1), (30, 7, 20)])
def test_no_number_is_in_two_sets(sizes):
    sets = split_numbers(100, *sizes, seed=3)
    assert tuple(len(sets[name]) for name in ("train", "val", "test")) == sizes
    together = [n for some in sets.values() for n in some]
    assert len(set(together)) == sum(sizes) and set(together) <= set(range(100))
    assert sets == split_numbers(100, *sizes, seed=3)


def test_the_small_ones_fill_half_and_test_is_drawn_evenly():
    sets = split_numbers(100_000, 10_000, 500, 2_000, seed=0)
    assert sum(n < 10_000 for n in sets["train"]) == 5_000
    assert 0.08 < sum(n < 10_000 for n in sets["test"]) / 2_000 < 0.12


@pytest.mark.parametrize("seed", range(10))
def test_a_tenth_that_is_less_than_half_of_train_is_taken_whole(seed):
    sets = split_numbers(20, 4, 1, 1, seed=seed)
    assert {0, 1} <= {*sets["train"], *sets["val"], *sets["test"]}


def test_marks_are_no_characters():
    tokenizer = MarkedTokenizer("cab")
    assert tokenizer.chars == ["<pad>", "<start>", "<end>", "a", "b", "c"] and tokenizer.vocab_size == 6
    assert tokenizer.encode("abc") == [3, 4, 5]
    assert encode_sources(tokenizer, ["ab", "c"]).tolist() == [[3, 4, END], [5, END, PAD]]
    assert encode_targets(tokenizer, ["ab", "c"]).tolist() == [[START, 3, 4, END], [START, 5, END, PAD]]
    for ids in ([START, 3, PAD, 4, END, PAD, 5], torch.tensor([3, 4, END, END])):
        assert tokenizer.decode(ids) == "ab"


test_what_is_refused = refusals(
    *(
        (f"n is {n!r}; expected a whole number from 0 to 999,999", number_words, n, "fr")
        for n in (-1, LARGEST_NUMBER + 1, 1.0, "7")
    ),
    ("language is 'de'; expected 'fr' or 'en'", number_words, 7, "de"),
    *(
        ("expected sizes of at least 1 that sum to at most below = 100", split_numbers, 100, *sizes, 0)
        for sizes in [(0, 1, 1), (1, 0, 1), (1, 1, 0), (80, 20, 1)]
    ),
    ("text 1 is empty; expected at least one character", encode_sources, MarkedTokenizer("a"), ["a", ""]),
    ("unknown character 'x' at position 1", encode_sources, MarkedTokenizer("a"), ["ax"]),
    ("there are no rows; expected at least one", encode_sources, MarkedTokenizer("a"), []),
    (
        "ids of shape (1, 6); expected (B, T) with T from 1 to block_size = 5",
        translation.translate,
        writer(1),
        torch.full((1, BLOCK + 1), 3),
    ),
    *(
        (
            f"{rows} sources, beam_width {width}; expected 1 source and a width of at least 1",
            translation.beam_search,
            writer(1),
            sources(2, 1)[:rows],
            width,
        )
        for rows, width in [(1, 0), (1, -2), (2, 3), (0, 3)]
    ),
)

WRITES = "logits = model.decoder(idx, memory, memory_mask)[:, -1]"
TOTALS = "totals = scores[:, None] + steps"
TAUGHT = "loss = translation_loss(model(src, tgt[:, :-1]), tgt[:, 1:])"
GOES_ON = "while idx.shape[1] <= model.config.block_size and not ended.all():\n        "
ENDED = "ended = ended[row] | (token == END)"
translator.faults = [
    ("<end> ignored while writing", "ended |= idx_next == END", "pass", greedy_is_one_token_at_a_time),
    ("writing goes on after <end>", ".masked_fill(ended, PAD)", "", greedy_is_one_token_at_a_time),
    ("stops when the first row has ended", f"{GOES_ON}logits", f"{GOES_ON}logits".replace("all()", "any()"),
     greedy_is_one_token_at_a_time),
    ("takes the unlikeliest", "logits.argmax(dim=-1).masked_fill", "logits.argmin(dim=-1).masked_fill",
     greedy_is_one_token_at_a_time),
    ("continues the first place", WRITES, WRITES.replace("-1", "0"), greedy_is_one_token_at_a_time),
    ("writes without the padding mask", WRITES, WRITES.replace(", memory_mask", ""),
     greedy_is_one_token_at_a_time),
    ("reads anew for each letter", WRITES, "logits = model(src, idx)[:, -1]", greedy_reads_the_source_once),
    ("writes without the source", WRITES, WRITES.replace(", memory, memory_mask", ""),
     greedy_is_one_token_at_a_time),
    ("beam ignores earlier scores", TOTALS, "totals = steps", wide_beam_finds_the_likeliest_of_all),
    ("beam ignores all scores", TOTALS, "totals = torch.zeros_like(steps) + scores[:, None]",
     wide_beam_finds_the_likeliest_of_all),
    ("beam adds logits", "F.log_softmax(model.decoder(idx, many, memory_mask)[:, -1], dim=-1)",
     "model.decoder(idx, many, memory_mask)[:, -1]", beams_are_sorted_different_and_true),
    ("beam multiplies by the score", TOTALS, TOTALS.replace("+", "*"),
     beams_are_sorted_different_and_true),
    ("beam keeps one", "min(beam_width, totals.numel())", "1", beam_leaves_the_garden_path),
    ("beam mixes up its rows", "idx[row], token", "idx[row.flip(0)], token",
     beams_are_sorted_different_and_true),
    ("beam forgets who had ended", ENDED, "ended = token == END", beams_are_sorted_different_and_true),
    ("beam's ended are not followed", ENDED,
     "ended = (ended | (token[: len(ended)] == END)) if len(ended) == len(token) else token == END",
     beams_are_sorted_different_and_true),
    ("an end pays for its padding", "steps[ended, PAD] = 0.0", "steps[ended, PAD] = -1.0",
     beams_are_sorted_different_and_true),
    ("what has ended is dropped", "steps[ended, PAD] = 0.0", "pass", wide_beam_finds_the_likeliest_of_all),
    ("what has ended goes on", 'steps[ended] = float("-inf")', "pass", beams_are_sorted_different_and_true),
    ("one letter short", f"{GOES_ON}many", f"{GOES_ON}many".replace("<=", "<"), beam_of_one_is_greedy),
    ("any token right is enough", "| ~real).all(dim=1)", "& real).any(dim=1)",
     judges_as_greedy_decoding_would),
    ("padding must be foretold", " | ~real", "", judges_as_greedy_decoding_would),
    ("<end> need not be foretold", "| ~real)", "| ~real | (targets == END))",
     judges_as_greedy_decoding_would),
    ("each batch weighs the same", "* real.sum().item()", "* real.numel()",
     judges_the_mean_loss_of_all_tokens),
    ("judged while training", "with eval_mode(model):", "if True:", judging_leaves_the_mode),
    ("left in eval mode", "with eval_mode(model):", "model.eval()\n    if True:", judging_leaves_the_mode),
    ("targets in another order", "tgt[order]", "tgt", pairs_stay_together_shortest_first),
    ("longest first", "argsort(", "argsort(descending=True, ", pairs_stay_together_shortest_first),
    ("drawn without a window", "window = min(16 * batch_size, len(self.src))", "window = len(self.src)",
     draws_neighbours_from_everywhere),
    ("the last pairs never drawn", "len(self.src) - window)", "len(self.src) - window - 3)",
     draws_neighbours_from_everywhere),
    ("the ends hardly drawn", "torch.randint(len(self.src), ())",
     "window // 2 + torch.randint(len(self.src) - window + 1, ())", draws_neighbours_from_everywhere),
    ("padding stays", "rows[:, : (rows != PAD).sum(dim=1).max()]", "rows", trims_padding_alone),
    ("cut to the shortest", ".sum(dim=1).max()]", ".sum(dim=1).min()]", trims_padding_alone),
    ("targets not shifted", TAUGHT, TAUGHT.replace("tgt[:, 1:]", "tgt[:, :-1]"), learns_what_comes_next),
    ("<end> never taught", TAUGHT, TAUGHT.replace(":-1]", ":-2]").replace("1:]", "1:-1]"),
     learns_what_comes_next),
    ("the answer is read", TAUGHT, TAUGHT.replace(":-1]", "1:]"), learns_what_comes_next),
    ("gradients pile up", "optimizer.zero_grad()", "pass", steps_are_those_of_adamw),
    ("never steps", "optimizer.step()", "pass", (learns_what_comes_next, steps_are_those_of_adamw)),
    ("the schedule is not used", "learning_rate * rate_share(step, max_iters)", "learning_rate",
     steps_are_those_of_adamw),
    ("the last judgement left out", " or step == max_iters", "", history_tells_what_was_judged),
    ("the rate does not fall", "0.5 * (1 + math.cos(math.pi * step / max_iters))", "1.0",
     rate_rises_and_falls),
    ("no warm-up", "min(1.0, (step + 1) / 100)", "1.0", rate_rises_and_falls),
]  # fmt: skip
test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(translator)
