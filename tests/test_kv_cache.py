"""Writing with a memory, chapter 13: cached equals re-computed, whatever is read and written; faults in it.

Each property is a function of an implementation: `nanogpt` with the names of `kv_cache`, or a copy of both
with one place of their source changed. They pass them all; a planted fault fails exactly those that the table
names.
"""

import inspect
import math
from types import ModuleType

import pytest
import torch
from faults import failed, planted
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lecture_lib import kv_cache, nanogpt
from lecture_lib.generation import AutoregressiveModel, next_token, nucleus
from lecture_lib.kv_cache import KVCache, left_padded, may_look, positions
from lecture_lib.nanogpt import NanoGPTConfig

DOUBLE = torch.float64
V = 11  # size of the vocabulary


def assembled(cache: ModuleType = kv_cache, model: ModuleType = nanogpt) -> ModuleType:
    """A copy of the model's module that uses what is in the cache's module."""
    copy = ModuleType("assembled")
    vars(copy).update(vars(model))
    if cache is not kv_cache:
        exec(inspect.getsource(model), vars(copy))
    vars(copy).update({name: getattr(cache, name) for name in kv_cache.__all__})
    return copy


def make(library: ModuleType, block_size: int, **changes) -> nn.Module:
    """A model with opinions: another context gives another text."""
    sizes = {"vocab_size": V, "block_size": block_size, "n_embd": 6, "n_head": 2, "n_layer": 2, "tied": False}
    torch.manual_seed(1337)
    model = library.NanoGPT(NanoGPTConfig(**{**sizes, **changes})).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.7)
        for block in model.body.blocks:
            block.sa.proj.weight *= 5  # the past matters more than the token itself
    return model


def draw_ids(B: int, T: int, seed: int = 1337) -> torch.Tensor:
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))


def draw_logits(B: int, seed: int = 1337) -> torch.Tensor:
    return torch.randn(B, V, generator=torch.Generator().manual_seed(seed)) * 2


def seeded(generate, *arguments, seed: int = 7, **how) -> torch.Tensor:
    torch.manual_seed(seed)
    return generate(*arguments, **how)


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9)


def read_in(model: nn.Module, idx: torch.Tensor, cuts: list[int]) -> torch.Tensor:
    """The logits after the last token, the text being read in pieces that begin at `cuts`."""
    caches = model.new_caches(len(idx))
    for start, end in zip(cuts, [*cuts[1:], idx.shape[1]], strict=True):
        logits = model.read(idx[:, start:end], caches)
    return logits


# ---------------------------------------------------------------- the properties, for B, T, block_size, new


def writes_chapter_06s_text(library, B, T, block_size, new):
    """Token for token under the same seed, with each dial, from short prompts and ones that don't fit."""
    model, idx = make(library, block_size), draw_ids(B, T)
    for how in ({}, {"temperature": 0.5}, {"top_k": 3}):
        expected = seeded(AutoregressiveModel.generate, model, idx, new, **how)
        assert torch.equal(seeded(model.generate, idx, new, **how), expected)


def reads_in_any_pieces(library, B, T, block_size, new):
    """At once, token by token, or cut anywhere: the logits are those of the whole."""
    model, idx = make(library, block_size), draw_ids(B, block_size)
    for end in range(1, block_size + 1):
        expected = model(idx[:, :end])[0][:, -1]
        for cuts in (list(range(end)), *([0, cut] for cut in range(1, end))):
            close(read_in(model, idx[:, :end], cuts), expected)


def keeps_rows_apart(library, B, T, block_size, new):
    """Each row's logits are those of its text alone, at every step of a cached reading."""
    model, idx = make(library, block_size), draw_ids(3, block_size)
    for row in idx:
        alone = read_in(model, row[None], list(range(block_size)))
        together = read_in(model, torch.stack([*idx, row]), list(range(block_size)))
        close(together[-1:], alone)


def reads_each_token_once(library, B, T, block_size, new):
    """Within the context: the prompt in one reading, then token after token, and the last never."""
    model, shown = make(library, 16), []
    model.token_embedding_table.register_forward_hook(lambda _, ids, out: shown.append(ids[0].shape[1]))
    model.generate(draw_ids(B, 5), 7)
    assert shown == [5, *[1] * 6]


def begins_anew_with_what_it_keeps(library, B, T, block_size, new):
    """Whatever `keep` is, the text is the one that is written by reading the same windows without a cache."""
    model, idx = make(library, block_size), draw_ids(B, T)
    for keep in range(1, block_size + 1):
        expected, start = idx, 0
        torch.manual_seed(7)
        for end in range(T, T + new):
            if end - start > block_size:
                start = end - keep
            logits = model(expected[:, start:end])[0][:, -1]
            expected = torch.cat([expected, next_token(logits)], dim=1)
        assert torch.equal(seeded(model.generate, idx, new, keep=keep), expected)


def pads_as_if_alone(library, B, T, block_size, new):
    """Prompts of different lengths, in one batch: the same logits, and greedily the same texts, as alone."""
    model = make(library, block_size)
    prompts = [
        (1 + draw_ids(1, n, seed=n)[0] % 10).tolist()
        for n in (1, max(1, block_size - 3), max(1, block_size // 2))
    ]
    idx, pad = library.left_padded(prompts)
    out = model.generate(idx, 2 * block_size, top_k=1, pad=pad)
    for row, filling, prompt in zip(out, pad, prompts, strict=True):
        alone = model.generate(torch.tensor([prompt]), 2 * block_size, top_k=1)
        assert torch.equal(row[filling:], alone[0])
    for prompt in prompts:  # drawn as well, behind 3 columns of filling that leave the window in time
        padded, new = torch.tensor([[0] * 3 + prompt]), 2 * block_size
        drawn = seeded(model.generate, padded, new, pad=torch.tensor([3]))
        assert torch.equal(drawn[:, 3:], seeded(model.generate, padded[:, 3:], new))
    caches, unread = model.new_caches(3), idx
    for token in range(block_size - idx.shape[1] + 1):
        for row, prompt in zip(model.read(unread, caches, pad), prompts, strict=True):
            close(row, model(torch.tensor([prompt]))[0][0, -1])
            prompt.append(token % V)
        unread = torch.full((3, 1), token % V)


def the_nucleus_is_the_fewest(library, **_):
    """The likeliest tokens stay, as many as it takes to reach top_p, with their old logits."""
    for temperature in (0.5, 1.0, 2.0):
        logits = draw_logits(4)
        for top_p in (0.05, 0.3, 0.5, 0.8, 0.95):
            for row, kept in zip(logits, library.nucleus(logits, top_p, temperature), strict=True):
                probs, total = F.softmax(row / temperature, dim=-1), 0.0
                expected = torch.full((V,), -math.inf)
                for token in probs.argsort(descending=True):
                    if total < top_p:
                        expected[token] = row[token]
                    total += probs[token]
                assert torch.equal(kept, expected)


def draws_from_the_nucleus(library, **_):
    """`generate` draws what `next_token` draws from the nucleus at its temperature, top_k of it at most."""
    model, idx = make(library, 23), draw_ids(2, 3)
    for how in ({"temperature": 1.5}, {"temperature": 0.7, "top_k": 2}):
        expected = idx
        torch.manual_seed(7)
        for _ in range(20):
            logits = nucleus(model(expected)[0][:, -1], 0.8, how["temperature"])
            expected = torch.cat([expected, next_token(logits, **how)], dim=1)
        assert torch.equal(seeded(model.generate, idx, 20, top_p=0.8, **how), expected)


OF_ANY_SIZE = [
    writes_chapter_06s_text,
    reads_in_any_pieces,
    keeps_rows_apart,
    begins_anew_with_what_it_keeps,
    pads_as_if_alone,
]
PROPERTIES = [*OF_ANY_SIZE, reads_each_token_once, the_nucleus_is_the_fewest, draws_from_the_nucleus]

# ---------------------------------------------------------------- what is right passes


@settings(deadline=None, max_examples=12)
@given(B=st.integers(1, 3), T=st.integers(2, 9), block_size=st.integers(2, 6), new=st.integers(0, 9))
def test_properties(B, T, block_size, new):
    for holds in OF_ANY_SIZE:
        holds(assembled(), B, T, block_size, new)


@pytest.mark.parametrize("holds", [reads_each_token_once, the_nucleus_is_the_fewest, draws_from_the_nucleus])
def test_reading_and_drawing(holds):
    holds(assembled(), B=2, T=3, block_size=4, new=5)


@settings(deadline=None, max_examples=12)
@given(
    n_head=st.integers(1, 3),
    n_layer=st.integers(1, 3),
    bias=st.booleans(),
    tied=st.booleans(),
    activation=st.sampled_from(sorted(nanogpt.ACTIVATIONS)),
    temperature=st.floats(0.3, 2),
    top_k=st.none() | st.integers(1, V),
)
def test_cached_is_cacheless_for_any_configuration(
    n_head, n_layer, bias, tied, activation, temperature, top_k
):
    choices = {"bias": bias, "tied": tied, "activation": activation}
    model = make(assembled(), 7, n_embd=4 * n_head, n_head=n_head, n_layer=n_layer, **choices)
    how = {"temperature": temperature, "top_k": top_k}
    expected = seeded(AutoregressiveModel.generate, model, draw_ids(2, 4), 12, **how)
    assert torch.equal(seeded(model.generate, draw_ids(2, 4), 12, **how), expected)


def test_the_same_seed_the_same_text():
    model, idx = make(nanogpt, 6), draw_ids(2, 3)
    assert torch.equal(seeded(model.generate, idx, 20), seeded(model.generate, idx, 20))
    assert not torch.equal(seeded(model.generate, idx, 20), seeded(model.generate, idx, 20, seed=8))


@pytest.mark.parametrize("keep", [None, 1, 3, 6])
def test_no_position_beyond_block_size(keep):
    """All that is looked up while a text grows to five times the context, with and without filling."""
    model, seen = make(nanogpt, 6), []
    model.position_embedding_table.register_forward_hook(
        lambda _, at, out: seen.extend(at[0].flatten().tolist())
    )
    idx, pad = left_padded([[1, 2, 3], [4]])
    model.generate(idx, 30, keep=keep)
    model.generate(idx, 30, keep=keep, pad=pad)
    assert set(seen) == set(range(6))


def test_sampling_builds_no_graph_and_its_text_can_be_trained_on():
    model = make(nanogpt, 6)
    out = model.generate(draw_ids(2, 3), 3)
    assert not out.requires_grad and out.dtype == torch.int64
    model(out, out)[1].backward()
    assert model.lm_head.weight.grad.abs().sum() > 0


def test_the_prompt_is_left_as_it_was():
    idx = draw_ids(2, 3)
    before = idx.clone()
    make(nanogpt, 6).generate(idx, 5)
    assert torch.equal(idx, before)


def test_whole_numbers_of_32_bits():
    model, idx = make(nanogpt, 6), draw_ids(2, 3)
    assert torch.equal(seeded(model.generate, idx.int(), 4), seeded(model.generate, idx, 4))


def test_by_hand():
    """Two columns of filling before the second row; three tokens read, two new ones behind them."""
    pad = torch.tensor([0, 2])
    assert positions(3, 2, pad).tolist() == [[3, 4], [1, 2]]
    assert positions(0, 3, pad).tolist() == [[0, 1, 2], [0, 0, 0]]
    assert may_look(3, 2, pad)[:, 0].int().tolist() == [
        [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]],
        [[0, 0, 1, 1, 0], [0, 0, 1, 1, 1]],
    ]
    assert may_look(0, 3, pad)[1, 0].int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    idx, filling = left_padded([[5, 6, 7], [8]])
    assert idx.tolist() == [[5, 6, 7], [0, 0, 8]] and filling.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.39, [1]), (0.41, [1, 3]), (0.69, [1, 3]), (0.71, [1, 2, 3]), (1.0, [0, 1, 2, 3])]
)
def test_a_nucleus_by_hand(top_p, kept):
    logits = torch.tensor([[0.1, 0.4, 0.2, 0.3]], dtype=DOUBLE).log()
    assert nucleus(logits, top_p).isfinite()[0].nonzero().flatten().tolist() == kept


@settings(deadline=None, max_examples=50)
@given(
    logits=st.lists(st.floats(-15, 15, width=32), min_size=1, max_size=20),
    top_p=st.floats(0.01, 1),
    temperature=st.floats(0.1, 10),
)
def test_any_nucleus_holds_top_p_and_would_not_without_its_least(logits, top_p, temperature):
    row = torch.tensor([logits], dtype=DOUBLE)
    kept = nucleus(row, top_p, temperature).isfinite()
    probs = F.softmax(row / temperature, dim=-1)
    inside = probs[kept]
    assert inside.sum() >= top_p - 1e-9
    assert inside.sum() - inside.min() < top_p + 1e-9
    assert not (~kept).any() or inside.min() >= probs[~kept].max()


# ---------------------------------------------------------------- what is wrong is refused


@pytest.mark.parametrize("top_p", [0, -0.1, 1.1, math.nan])
def test_a_top_p_that_cannot_be(top_p):
    with pytest.raises(ValueError, match=f"top_p is {top_p}; expected a share of the probability above 0"):
        nucleus(draw_logits(1), top_p)
    with pytest.raises(ValueError, match=f"top_p is {top_p}"):
        make(nanogpt, 4).generate(draw_ids(1, 2), 1, top_p=top_p)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"temperature": 0}, "temperature is 0; expected a positive number"),
        ({"temperature": 0.0, "top_p": 0.5}, "temperature is 0.0; expected a positive number"),
        ({"temperature": math.nan}, "temperature is nan; expected"),
        ({"top_k": 0}, f"top_k is 0; expected 1 to {V}"),
        ({"top_k": V + 1}, f"top_k is {V + 1}; expected 1 to {V}"),
        ({"keep": 0}, "keep is 0; expected 1 to block_size = 4"),
        ({"keep": 5}, "keep is 5; expected 1 to block_size = 4"),
        ({"pad": torch.tensor([2])}, r"pad is \[2\]; expected 1 numbers from 0 to 1"),
        ({"pad": torch.tensor([-1])}, r"pad is \[-1\]; expected 1 numbers from 0 to 1"),
        ({"pad": torch.tensor([0, 0])}, r"pad is \[0, 0\]; expected 1 numbers"),
        ({"max_new_tokens": -1}, "max_new_tokens is -1; expected 0 or more"),
    ],
)
def test_dials_that_cannot_be(how, message):
    with pytest.raises(ValueError, match=message):
        make(nanogpt, 4).generate(**{"idx": draw_ids(1, 2), "max_new_tokens": 1, **how})


def test_prompts_that_cannot_be():
    model = make(nanogpt, 4)
    with pytest.raises(ValueError, match="idx has rows of 0 tokens; expected at least one"):
        model.generate(draw_ids(2, 0), 3)
    with pytest.raises(ValueError, match=r"idx has shape \(3,\); expected two dimensions"):
        model.generate(torch.tensor([1, 2, 3]), 1)
    with pytest.raises(TypeError, match=r"idx has dtype torch\.float32; expected token ids"):
        model.generate(torch.zeros(1, 3), 1)
    for prompts in ([], [[1], []]):
        with pytest.raises(ValueError, match="expected at least one prompt, none of them empty"):
            left_padded(prompts)


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 3, 1, 4), (2, 3, 1, 5)])
def test_keys_that_do_not_fit_into_the_cache(shape):
    cache = KVCache(2, 3, 4, 4, like=torch.zeros(1))
    with pytest.raises(ValueError, match=r"expected \(2, 3, T, 4\) with T at most 4, the room that is left"):
        cache.extend(torch.zeros(shape), torch.zeros(shape))


def test_a_cache_that_is_full():
    cache, four = KVCache(1, 1, 4, 2, like=torch.zeros(1)), torch.zeros(1, 1, 4, 2)
    cache.extend(four, four)
    with pytest.raises(ValueError, match="with T at most 0"):
        cache.extend(four[:, :, :1], four[:, :, :1])
    cache.clear()
    assert cache.extend(four, four)[0].shape == (1, 1, 4, 2)


# ---------------------------------------------------------------- planted faults are caught

TEXT, PIECES, ROWS, KEEP, PADS, ONCE, NUCLEUS, DRAWN = PROPERTIES
WRITTEN = {TEXT, KEEP, PADS, DRAWN}

# the fault, its module, its place in the source, what it becomes, and all properties that must notice
FAULTS = [
    ("one token lost", kv_cache, "        self.length = end\n", "        self.length = end - 1\n",
     {*WRITTEN, PIECES}),
    ("not kept", kv_cache, "        self.length = end\n", "", {*WRITTEN, PIECES}),
    ("the newest not returned", kv_cache, "self.values[:, :, :end]\n", "self.values[:, :, :start + 1]\n",
     {*WRITTEN, PIECES}),
    ("values for keys", kv_cache, "return self.keys[", "return self.values[", {*WRITTEN, PIECES}),
    ("one cache for all rows", kv_cache, "return self.keys[:, :, :end]",
     "return self.keys[:1, :, :end].expand(B, -1, -1, -1)", {*WRITTEN, PIECES, ROWS}),
    ("never cleared", kv_cache, "        self.length = 0\n\n\ndef", "        pass\n\n\ndef",
     {TEXT, KEEP, PADS}),
    ("positions from 0", kv_cache, "torch.arange(seen, seen + T, device", "torch.arange(T, device",
     {*WRITTEN, PIECES}),
    ("positions off by one", kv_cache, "(columns - pad[:, None])", "(columns - pad[:, None] - 1)",
     {*WRITTEN, PIECES}),
    ("positions count the filling", kv_cache, "(columns - pad[:, None])", "(columns + 0 * pad[:, None])",
     {PADS}),
    ("mask from the first key", kv_cache, "causal_mask(seen + T)[seen:]", "causal_mask(seen + T)[:T]",
     {PIECES, PADS}),
    ("filling is seen", kv_cache, "past & token[:, None] | own",
     "past & (token[:, None] | True) | own", {PADS}),
    ("the future is seen", kv_cache, "past & token[:, None] | own", "(past | True) & token[:, None] | own",
     {PIECES, PADS}),
    ("filled at the right", kv_cache, "[0] * (T - len(prompt)) + prompt", "prompt + [0] * (T - len(prompt))",
     {PADS}),
    ("the one that reaches it left out", kv_cache, "probs.cumsum(dim=-1) - probs", "probs.cumsum(dim=-1)",
     {NUCLEUS, DRAWN}),
    ("one too many", kv_cache, "probs.cumsum(dim=-1) - probs",
     "(probs.cumsum(dim=-1) - probs).roll(1, dims=-1).index_fill(-1, torch.tensor([0]), 0)",
     {NUCLEUS, DRAWN}),
    ("the unlikely first", kv_cache, "descending=True", "descending=False", {NUCLEUS, DRAWN}),
    ("left out in the wrong order", kv_cache,
     "(likelier >= top_p).scatter(-1, order, likelier >= top_p)", "likelier >= top_p", {NUCLEUS, DRAWN}),
    ("nucleus at temperature 1", kv_cache, "logits / temperature", "logits", {NUCLEUS, DRAWN}),
    ("temperature not handed on", nanogpt, "nucleus(logits, top_p, temperature)", "nucleus(logits, top_p)",
     {DRAWN}),
    ("top k not handed on", nanogpt, "next_token(logits, temperature, top_k)",
     "next_token(logits, temperature)", {TEXT, PADS, DRAWN}),
    ("window too large", nanogpt, "if end - start > self.block_size", "if end - start > self.block_size + 1",
     {TEXT, KEEP, PADS}),
    ("window too small", nanogpt, "if end - start > self.block_size", "if end - start >= self.block_size",
     {KEEP}),
    ("one token too few kept", nanogpt, "start = read = end - keep", "start = read = end - max(1, keep - 1)",
     {TEXT, KEEP, PADS}),
    ("always half the context", nanogpt, "start = read = end - keep",
     "start = read = end - self.block_size // 2",
     {TEXT, KEEP, PADS}),
    ("read again at each step", nanogpt, "            read = end\n", "", {*WRITTEN, ONCE}),
    ("last token not read", nanogpt, "            read = end\n", "            read = end + 1\n",
     {*WRITTEN, ONCE}),
    ("drawn from the first place", nanogpt, "self.lm_head(x[:, -1])", "self.lm_head(x[:, 0])",
     {*WRITTEN, PIECES}),
    ("filling stays when the window moves", nanogpt, "(pad - start).clamp(min=0)", "pad", {PADS}),
    ("no mask for several behind a past", nanogpt, "if T > 1 or pad is not None", "if pad is not None",
     {PIECES}),
    ("no mask for filling", nanogpt, "if T > 1 or pad is not None", "if T > 1 and seen", {PADS}),
    ("all layers one cache", nanogpt, "caches and caches[i].extend", "caches and caches[0].extend",
     {*WRITTEN, PIECES, ROWS, ONCE}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("module", "old", "new", "noticed_by"), [pytest.param(*f[1:], id=f[0]) for f in FAULTS]
)
def test_a_planted_fault_is_caught(module, old, new, noticed_by):
    faulty = planted(module, old, new)
    library = assembled(cache=faulty) if module is kv_cache else assembled(model=faulty)
    assert failed(library, PROPERTIES, B=4, T=2, block_size=8, new=14) == noticed_by


def test_every_property_catches_a_fault():
    assert set().union(*(noticed_by for *_, noticed_by in FAULTS)) == set(PROPERTIES)
