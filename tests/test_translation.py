"""Translating number words, chapter 12: data, decoding, judging, training, and faults that would break them.

Each property is a function of an implementation: the module `translation`, or a copy of it with one place of
its source changed. The module passes them all; a planted fault fails exactly those that the table names.
"""

import contextlib
import io
import itertools
import math
from types import ModuleType, SimpleNamespace

import pytest
import torch
from faults import fault_tests
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lecture_lib import translation
from lecture_lib.encoder_decoder import EncoderDecoder, TranslatorConfig
from lecture_lib.number_words import LARGEST_NUMBER, number_words, split_numbers
from lecture_lib.sequences import END, PAD, START, MarkedTokenizer, encode_sources, encode_targets, padded

SRC_VOCAB, TGT_VOCAB, BLOCK = 8, 6, 5


def writer(seed: int) -> EncoderDecoder:
    """A small model with strong random opinions, in eval mode."""
    torch.manual_seed(seed)
    model = EncoderDecoder(TranslatorConfig(SRC_VOCAB, TGT_VOCAB, BLOCK, 8, 2, 1)).double()
    model.encoder.embed.positions, model.decoder.embed.positions = (
        half.embed.positions.double() for half in (model.encoder, model.decoder)
    )
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data *= 2.5
    model.decoder.embed.tokens.weight.data *= 0.2  # so that the source matters more than the last letter
    model.decoder.lm_head.bias.data += torch.tensor([-9.0, -9.0, 1.0, 0.0, 0.0, 0.0])  # some texts end early
    return model.eval()


def sources(N: int, seed: int) -> torch.Tensor:
    """Sources (N, S) of different lengths, the longest first."""
    lengths = [max(1, BLOCK - 1 - n % 4) for n in range(N)]
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(3, SRC_VOCAB, (length,), generator=generator).tolist() for length in lengths]
    return padded([[*row, END] for row in rows])


def by_hand(model: nn.Module, src: torch.Tensor) -> list[int]:
    """Greedy decoding of one unpadded source, one token at a time: ids from <start> on."""
    ids = [START]
    while ids[-1] != END and len(ids) <= BLOCK:
        ids.append(model(src[src != PAD][None], torch.tensor([ids]))[0, -1].argmax().item())
    return ids


def log_probability(model: nn.Module, src: torch.Tensor, ids: list[int]) -> float:
    logits = model(src[None], torch.tensor([ids[:-1]]))[0]  # (T, vocab)
    return sum(F.log_softmax(logits, -1)[t, i].item() for t, i in enumerate(ids[1:]))


def real(ids: list[int]) -> list[int]:
    """Without the padding after <end>."""
    return ids[: ids.index(END) + 1] if END in ids else ids


# ---------------------------------------------------------------- decoding


def greedy_is_one_token_at_a_time(library, N, seed):
    """For a batch with padding, what each source gives alone; from <start> to <end>, then padding only."""
    model, src = writer(seed), sources(N, seed)
    for row, ids in zip(src, library.translate(model, src).tolist(), strict=True):
        expected = by_hand(model, row)
        assert ids[: len(expected)] == expected and set(ids[len(expected) :]) <= {PAD}


def greedy_reads_the_source_once(library, N, seed):
    model, src, calls = writer(seed), sources(N, seed), []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    library.translate(model, src)
    assert calls == [1]


def beam_of_one_is_greedy(library, N, seed):
    model, src = writer(seed), sources(N, seed)
    for row in src:
        ((ids, score),) = library.beam_search(model, row[None], 1)
        expected = by_hand(model, row)
        assert ids == expected
        assert math.isclose(score, log_probability(model, row, expected), abs_tol=1e-5)


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


def beams_are_sorted_different_and_true(library, N, seed):
    model, src = writer(seed), sources(N, seed)
    for row in src:
        beams = library.beam_search(model, row[None], 3)
        scores = [score for _, score in beams]
        assert len(beams) == 3 and scores == sorted(scores, reverse=True)
        assert len({tuple(ids) for ids, _ in beams}) == 3
        for ids, score in beams:
            assert set(ids[len(real(ids)) :]) <= {PAD}
            assert math.isclose(score, log_probability(model, row, real(ids)), abs_tol=1e-5)


def beam_leaves_the_garden_path(library, N, seed):
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


def some_pairs(library: ModuleType, model: nn.Module, N: int, seed: int):
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
    pairs = library.TranslationPairs(src, padded(targets))
    order = (src != PAD).sum(dim=1).argsort(stable=True)
    return pairs, [right[i] for i in order.tolist()]


def judges_as_greedy_decoding_would(library, N, seed):
    model = writer(seed)
    pairs, right = some_pairs(library, model, N, seed)
    assert library.evaluate_pairs(model, pairs)[1].tolist() == right


def judges_the_mean_loss_of_all_tokens(library, N, seed):
    """Over more pairs than go through the model at a time."""
    model = writer(seed)
    src = sources(150, seed)
    tgt = padded([[START, *row[row != PAD].tolist()[:-1], END] for row in src.clamp(max=TGT_VOCAB - 1)])
    pairs = library.TranslationPairs(src, tgt)
    logits, targets = model(pairs.src, pairs.tgt[:, :-1]), pairs.tgt[:, 1:]
    each = F.cross_entropy(logits[targets != PAD], targets[targets != PAD])
    assert math.isclose(library.evaluate_pairs(model, pairs)[0], each.item(), abs_tol=1e-8)


def judging_leaves_the_mode(library, N, seed):
    model = writer(seed)
    pairs, _ = some_pairs(library, model, N, seed)
    modes = []
    model.register_forward_hook(lambda *_: modes.append(model.training))
    model.train()
    library.evaluate_pairs(model, pairs)
    assert model.training and not any(modes)


def pairs_stay_together_shortest_first(library, N, seed):
    src = sources(N, seed)
    pairs = library.TranslationPairs(src, src + 100 * (src != PAD))  # a target tells its source
    lengths = (pairs.src != PAD).sum(dim=1)
    assert (lengths.diff() >= 0).all() and sorted(pairs.src.tolist()) == sorted(src.tolist())
    torch.manual_seed(seed)
    for _ in range(5):
        drawn, targets = pairs.draw(2)
        assert len(drawn) == min(2, N) and torch.equal(targets, drawn + 100 * (drawn != PAD))
        assert (drawn != PAD).any(dim=0).all()  # no column is all padding


def early_draws_are_from_the_shortest(library, N, seed):
    """Of 300 pairs, windows of 32 neighbours; every pair of the share can be drawn, and no other."""
    src = padded([[*([3] * (1 + n // 10)), END] for n in range(300)])
    pairs = library.TranslationPairs(src, src)
    torch.manual_seed(seed)
    for share, longest in ((0.0, 5), (0.5, 16), (1.0, 31)):
        widths = [pairs.draw(2, share)[0].shape[1] for _ in range(300)]
        assert longest - 1 <= max(widths) <= longest and min(widths) <= 4
        assert all((pairs.draw(2, share)[0] != PAD).sum(dim=1).diff().abs() <= 4 for _ in range(20))


def cutting_loses_no_token(library, N, seed):
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


def learns_what_comes_next(library, N, seed):
    """Input: <start> and the text. Target: the text and <end>. Places behind the end are taught nothing."""
    torch.manual_seed(seed)
    model, tgt = Column(), padded([[START, 5, 3, END], [START, 5, 3, END]])
    pairs = library.TranslationPairs(padded([[3, END], [4, END]]), F.pad(tgt, (0, 2), value=PAD))
    with contextlib.redirect_stdout(io.StringIO()):
        history = library.train_translator(model, {"train": pairs, "val": pairs}, 2, 120, 0.1)
    assert all(idx.tolist() == [[START, 5, 3]] * 2 for idx in model.heard)
    assert model.logits.argmax(dim=1).tolist()[:3] == [5, 3, END]
    assert (model.logits[3:] == 0).all()
    assert history.exact[0] == 0 and history.exact[-1] == 1 and history.val[-1] < 0.5 < history.val[0]


def history_tells_what_was_judged(library, N, seed):
    """Ten times and at the end, of the model as it then was."""
    torch.manual_seed(seed)
    model, pairs = Column(), library.TranslationPairs(padded([[3, END]]), padded([[START, 5, END]]))
    with contextlib.redirect_stdout(io.StringIO()):
        history = library.train_translator(model, {"train": pairs, "val": pairs}, 1, 25, 0.1)
    assert history.steps == [*range(0, 25, 2), 25]
    assert len(history.train) == len(history.val) == len(history.exact) == 14
    assert math.isclose(history.val[0], math.log(TGT_VOCAB), abs_tol=1e-6)
    assert math.isclose(history.val[-1], library.evaluate_pairs(model, pairs)[0], abs_tol=1e-6)


def steps_are_those_of_adamw(library, N, seed):
    """The same numbers from a loop written out here."""
    model, by_hand = Column(), Column()
    src, tgt = padded([[3, END]]), padded([[START, 5, 4, END]])
    pairs = library.TranslationPairs(src, tgt)
    with contextlib.redirect_stdout(io.StringIO()):
        library.train_translator(model, {"train": pairs, "val": pairs}, 1, 30, 0.1)
    optimizer = torch.optim.AdamW(by_hand.parameters(), betas=(0.9, 0.98))
    for step in range(30):
        optimizer.param_groups[0]["lr"] = 0.1 * (step + 1) / 100 * 0.5 * (1 + math.cos(math.pi * step / 30))
        optimizer.zero_grad()
        F.cross_entropy(by_hand(src, tgt[:, :-1])[0], tgt[0, 1:]).backward()
        nn.utils.clip_grad_norm_(by_hand.parameters(), 1.0)
        optimizer.step()
    torch.testing.assert_close(model.logits, by_hand.logits, rtol=0, atol=1e-5)


def schedule_rises_falls_and_lets_all_in(library, N, seed):
    steps = 1000
    rates, shares = zip(*(library.curriculum(step, steps) for step in range(steps + 1)), strict=True)
    peak = rates.index(max(rates))
    assert 90 <= peak <= 110 and 0.9 < max(rates) <= 1 and rates[0] < 0.02 and abs(rates[-1]) < 1e-9
    rising, falling = list(rates[:peak]), list(rates[peak:])
    assert rising == sorted(rising) and falling == sorted(falling, reverse=True)
    assert list(shares) == sorted(shares) and 0.1 < shares[0] < 0.2 and shares[400] == 1 == shares[-1]
    assert shares[200] < 1


PROPERTIES = [
    greedy_is_one_token_at_a_time,
    greedy_reads_the_source_once,
    beam_of_one_is_greedy,
    wide_beam_finds_the_likeliest_of_all,
    beams_are_sorted_different_and_true,
    beam_leaves_the_garden_path,
    judges_as_greedy_decoding_would,
    judges_the_mean_loss_of_all_tokens,
    judging_leaves_the_mode,
    pairs_stay_together_shortest_first,
    early_draws_are_from_the_shortest,
    cutting_loses_no_token,
    learns_what_comes_next,
    history_tells_what_was_judged,
    steps_are_those_of_adamw,
    schedule_rises_falls_and_lets_all_in,
]
SIZES = {"N": 7, "seed": 6}

# ---------------------------------------------------------------- what is right passes


@pytest.mark.parametrize("holds", PROPERTIES, ids=lambda holds: holds.__name__)
@pytest.mark.parametrize("seed", [2, SIZES["seed"]])
def test_properties(holds, seed):
    holds(translation, N=7, seed=seed)


def test_the_writers_texts_differ_and_end_early_or_never():
    """What the properties above are tested on is not trivial."""
    texts = [tuple(by_hand(writer(SIZES["seed"]), row)) for row in sources(7, SIZES["seed"])]
    assert len(set(texts)) > 2 and any(text[-1] == END for text in texts)


@settings(deadline=None, max_examples=10)
@given(N=st.integers(1, 6), seed=st.integers(0, 1000))
def test_one_pass_tells_what_greedy_decoding_gets_right(N, seed):
    judges_as_greedy_decoding_would(translation, N, seed)


# ---------------------------------------------------------------- number words, marks


@pytest.mark.parametrize(
    ("n", "french", "english"),
    [
        (0, "zéro", "zero"),
        (21, "vingt et un", "twenty-one"),
        (71, "soixante et onze", "seventy-one"),
        (80, "quatre-vingts", "eighty"),
        (97, "quatre-vingt-dix-sept", "ninety-seven"),
        (200, "deux cents", "two hundred"),
        (1_001, "mille un", "one thousand and one"),
        (80_000, "quatre-vingt mille", "eighty thousand"),
    ],
)
def test_number_words(n, french, english):
    assert (number_words(n, "fr"), number_words(n, "en")) == (french, english)


@pytest.mark.parametrize("n", [-1, LARGEST_NUMBER + 1, 1.0, "7"])
def test_numbers_out_of_range(n):
    with pytest.raises(ValueError, match=r"n is .*; expected a whole number from 0 to 999,999"):
        number_words(n, "fr")


def test_another_language():
    with pytest.raises(ValueError, match="language is 'de'; expected 'fr' or 'en'"):
        number_words(7, "de")


@settings(deadline=None, max_examples=30)
@given(
    n_train=st.integers(1, 60), n_val=st.integers(1, 20), n_test=st.integers(1, 20), seed=st.integers(0, 99)
)
def test_no_number_is_in_two_sets(n_train, n_val, n_test, seed):
    sets = split_numbers(100, n_train, n_val, n_test, seed)
    assert [len(sets[name]) for name in ("train", "val", "test")] == [n_train, n_val, n_test]
    together = [n for some in sets.values() for n in some]
    assert len(set(together)) == len(together) and set(together) <= set(range(100))
    assert sets == split_numbers(100, n_train, n_val, n_test, seed)


def test_the_small_ones_fill_half_and_test_is_drawn_evenly():
    sets = split_numbers(100_000, 10_000, 500, 2_000, seed=0)
    assert sum(n < 10_000 for n in sets["train"]) == 5_000
    assert 0.08 < sum(n < 10_000 for n in sets["test"]) / 2_000 < 0.12


@pytest.mark.parametrize("sizes", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (80, 20, 1)])
def test_sizes_that_cannot_be(sizes):
    with pytest.raises(ValueError, match=r"expected sizes of at least 1 that sum to at most below = 100"):
        split_numbers(100, *sizes, seed=0)


def test_marks_are_no_characters():
    tokenizer = MarkedTokenizer("cab")
    assert tokenizer.chars == ["<pad>", "<start>", "<end>", "a", "b", "c"] and tokenizer.vocab_size == 6
    assert tokenizer.encode("abc") == [3, 4, 5]
    assert encode_sources(tokenizer, ["ab", "c"]).tolist() == [[3, 4, END], [5, END, PAD]]
    assert encode_targets(tokenizer, ["ab", "c"]).tolist() == [[START, 3, 4, END], [START, 5, END, PAD]]
    for ids in ([START, 3, PAD, 4, END, PAD, 5], torch.tensor([3, 4, END, END])):
        assert tokenizer.decode(ids) == "ab"


@given(st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=4))
def test_texts_come_back(texts):
    tokenizer = MarkedTokenizer("abc")
    for encode in (encode_sources, encode_targets):
        assert [tokenizer.decode(row) for row in encode(tokenizer, texts)] == texts


def test_texts_that_cannot_be_read():
    tokenizer = MarkedTokenizer("abc")
    with pytest.raises(ValueError, match="text 1 is empty; expected at least one character"):
        encode_sources(tokenizer, ["a", ""])
    with pytest.raises(ValueError, match="unknown character 'x' at position 1"):
        encode_sources(tokenizer, ["ax"])
    with pytest.raises(ValueError, match="there are no rows; expected at least one"):
        encode_sources(tokenizer, [])


def test_a_source_longer_than_the_model():
    with pytest.raises(ValueError, match=r"ids of shape \(1, 6\); expected .* block_size = 5"):
        translation.translate(writer(1), torch.full((1, BLOCK + 1), 3))


@pytest.mark.parametrize(("rows", "width"), [(1, 0), (1, -2), (2, 3), (0, 3)])
def test_beams_that_cannot_be(rows, width):
    message = f"{rows} sources, beam_width {width}; expected 1 source and a width of at least 1"
    with pytest.raises(ValueError, match=message):
        translation.beam_search(writer(1), sources(2, 1)[:rows], width)


# ---------------------------------------------------------------- planted faults are caught

GREEDY, ONCE, ONE, LIKELIEST, BEAMS, GARDEN, JUDGE, MEAN, *OTHERS = PROPERTIES
MODE, PAIRS, EARLY, CUT, NEXT, HISTORY, ADAMW, SCHEDULE = OTHERS
TOTALS = "totals = scores[:, None] + steps"

# the fault, its place in the source, what it becomes, and all properties that must notice
FAULTS = [
    ("<end> ignored while writing", "ended |= idx_next == END", "pass", {GREEDY}),
    ("writing goes on after <end>", "idx_next = logits.argmax(dim=-1).masked_fill(ended, PAD)",
     "idx_next = logits.argmax(dim=-1)", {GREEDY}),
    ("stops when the first row has ended",
     "not ended.all():\n        logits", "not ended.any():\n        logits", {GREEDY}),
    ("takes the unlikeliest", "logits.argmax(dim=-1).masked_fill", "logits.argmin(dim=-1).masked_fill",
     {GREEDY}),
    ("continues the first place",
     "model.decoder(idx, memory, memory_mask)[:, -1]  # (B, T, vocab) -> (B, vocab)",
     "model.decoder(idx, memory, memory_mask)[:, 0]", {GREEDY}),
    ("writes without the padding mask", "logits = model.decoder(idx, memory, memory_mask)[:, -1]",
     "logits = model.decoder(idx, memory)[:, -1]", {GREEDY}),
    ("reads anew for each letter",
     "logits = model.decoder(idx, memory, memory_mask)[:, -1]", "logits = model(src, idx)[:, -1]", {ONCE}),
    ("writes without the source", "logits = model.decoder(idx, memory, memory_mask)[:, -1]",
     "logits = model.decoder(idx)[:, -1]", {GREEDY}),
    ("beam ignores earlier scores", TOTALS, "totals = steps", {ONE, LIKELIEST, BEAMS, GARDEN}),
    ("beam ignores all scores", TOTALS, "totals = torch.zeros_like(steps) + scores[:, None]",
     {ONE, LIKELIEST, BEAMS, GARDEN}),
    ("beam adds logits", "F.log_softmax(model.decoder(idx, many, memory_mask)[:, -1], dim=-1)",
     "model.decoder(idx, many, memory_mask)[:, -1]", {ONE, LIKELIEST, BEAMS}),
    ("beam multiplies by the score", TOTALS, "totals = scores[:, None] * steps",
     {ONE, LIKELIEST, BEAMS, GARDEN}),
    ("beam keeps one", "min(beam_width, totals.numel())", "1", {LIKELIEST, BEAMS, GARDEN}),
    ("beam mixes up its rows", "torch.cat([idx[row], token[:, None]], dim=1)",
     "torch.cat([idx[row.flip(0)], token[:, None]], dim=1)", {LIKELIEST, BEAMS, GARDEN}),
    ("beam forgets who had ended", "ended = ended[row] | (token == END)", "ended = token == END",
     {LIKELIEST, BEAMS}),
    ("beam's ended are not followed", "ended = ended[row] | (token == END)",
     "ended = (ended | (token[: len(ended)] == END)) if len(ended) == len(token) else token == END",
     {LIKELIEST, BEAMS}),
    ("an end pays for its padding", "steps[ended, PAD] = 0.0", "steps[ended, PAD] = -1.0",
     {LIKELIEST, BEAMS}),
    ("what has ended is dropped", "steps[ended, PAD] = 0.0", "pass", {LIKELIEST}),
    ("what has ended goes on", 'steps[ended] = float("-inf")', "pass", {BEAMS}),
    ("one letter short", "while idx.shape[1] <= model.config.block_size and not ended.all():\n        many",
     "while idx.shape[1] < model.config.block_size and not ended.all():\n        many", {ONE}),
    ("any token right is enough", "| ~real).all(dim=1)", "& real).any(dim=1)", {JUDGE}),
    ("padding must be foretold", " | ~real", "", {JUDGE}),
    ("<end> need not be foretold", "| ~real)", "| ~real | (targets == END))", {JUDGE}),
    ("each batch weighs the same", "* real.sum().item()", "* real.numel()", {MEAN}),
    ("judged while training", "with eval_mode(model):", "if True:", {MODE}),
    ("left in eval mode", "with eval_mode(model):", "model.eval()\n    if True:", {MODE}),
    ("targets in another order", "src[order], tgt[order]", "src[order], tgt", {JUDGE, PAIRS}),
    ("longest first", "argsort(stable=True)", "argsort(descending=True, stable=True)",
     {JUDGE, PAIRS, EARLY}),
    ("drawn from all pairs", "int(share * len(self.src))", "len(self.src)", {EARLY}),
    ("the last pairs never drawn", "- window + 1, (1,))", "- window, (1,))" ,
     {PAIRS, EARLY, NEXT, HISTORY, ADAMW}),
    ("padding stays", "rows[:, : (rows != PAD).sum(dim=1).max()]", "rows", {PAIRS, EARLY, CUT, NEXT}),
    ("cut to the shortest", ".sum(dim=1).max()]", ".sum(dim=1).min()]", {JUDGE, MEAN, CUT}),
    ("targets not shifted", "loss = translation_loss(model(src, tgt[:, :-1]), tgt[:, 1:])",
     "loss = translation_loss(model(src, tgt[:, :-1]), tgt[:, :-1])", {NEXT, ADAMW}),
    ("<end> never taught", "loss = translation_loss(model(src, tgt[:, :-1]), tgt[:, 1:])",
     "loss = translation_loss(model(src, tgt[:, :-2]), tgt[:, 1:-1])", {NEXT, ADAMW}),
    ("the answer is read", "loss = translation_loss(model(src, tgt[:, :-1]), tgt[:, 1:])",
     "loss = translation_loss(model(src, tgt[:, 1:]), tgt[:, 1:])", {NEXT}),
    ("gradients pile up", "optimizer.zero_grad()", "pass", {ADAMW}),
    ("never steps", "optimizer.step()", "pass", {NEXT, ADAMW}),
    ("the schedule is not used", 'optimizer.param_groups[0]["lr"] = learning_rate * rate', "pass",
     {HISTORY, ADAMW}),
    ("the last judgement left out", " or step == max_iters:", ":", {HISTORY}),
    ("the rate does not fall", "0.5 * (1 + math.cos(math.pi * done))", "1.0", {HISTORY, ADAMW, SCHEDULE}),
    ("no warm-up", "min(1.0, (step + 1) / 100)", "1.0", {ADAMW, SCHEDULE}),
    ("long ones at once", "min(1.0, 0.15 + 2.5 * done)", "1.0", {SCHEDULE}),
]  # fmt: skip


test_a_planted_fault_is_caught, test_every_property_catches_a_fault = fault_tests(
    {translation: (PROPERTIES, FAULTS)}, **SIZES
)
