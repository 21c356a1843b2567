"""Writing with a cache, chapter 13: cached equals computed again, whatever is read and written."""

import inspect
from functools import partial
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import Suite, close, draw_ids, planted, raises, refusals, seeded, suite_tests

from lecture_lib import kv_cache, nanogpt
from lecture_lib.generation import AutoregressiveModel, next_token
from lecture_lib.kv_cache import KVCache, left_padded, mask_after, positions_after
from lecture_lib.nanogpt import NanoGPTConfig

V = 11  # size of the vocabulary


def assembled(cache: ModuleType = kv_cache, model: ModuleType = nanogpt) -> ModuleType:
    """A copy of the model's module that uses what is in the cache's module."""
    copy = ModuleType("assembled")
    vars(copy).update(vars(model))
    if cache is not kv_cache:
        exec(inspect.getsource(model), vars(copy))
    vars(copy).update({name: getattr(cache, name) for name in kv_cache.__all__})
    return copy


def with_fault(_, module, old, new):
    kind = "cache" if module is kv_cache else "model"
    return assembled(**{kind: planted(module, old, new)})


writing = Suite(assembled(), plant=with_fault, B=4, T=2, block_size=8, new=14)
write = partial(seeded, seed=7)


def make(library, block_size, **changes):
    """A model with opinions: another context gives another text."""
    sizes = {"vocab_size": V, "block_size": block_size, "n_embd": 6, "n_head": 2, "n_layer": 2, "tied": False}
    torch.manual_seed(1337)
    model = library.NanoGPT(NanoGPTConfig(**sizes | changes)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.7)
        for block in model.body.blocks:
            block.sa.proj.weight *= 5  # the past matters more than the token itself
    return model


def read_in(model, idx, cuts):
    """The logits after the last token, the text being read in pieces that begin at `cuts`."""
    caches = model.new_caches(len(idx))
    for start, end in zip(cuts, [*cuts[1:], idx.shape[1]], strict=True):
        logits = model.read(idx[:, start:end], caches)
    return logits


@writing.holds
def writes_chapter_06s_text(library, B, T, block_size, new):
    """Token for token under the same seed, with each dial, from short prompts and ones that don't fit."""
    model, idx = make(library, block_size), draw_ids(B, T)
    for how in ({}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.8}):
        expected = write(AutoregressiveModel.generate, model, idx, new, **how)
        assert torch.equal(write(model.generate, idx, new, **how), expected)


@writing.holds
def reads_in_any_pieces(library, B, block_size):
    """At once, token by token, or cut anywhere: the logits are those of the whole."""
    model, idx = make(library, block_size), draw_ids(B, block_size)
    for end in range(1, block_size + 1):
        expected = model(idx[:, :end])[0][:, -1]
        for cuts in (list(range(end)), *([0, cut] for cut in range(1, end))):
            close(read_in(model, idx[:, :end], cuts), expected, atol=1e-9)


@writing.holds
def keeps_rows_apart(library, block_size):
    """Each row's logits are those of its text alone, at every step of a cached reading."""
    model, idx = make(library, block_size), draw_ids(3, block_size)
    for row in idx:
        alone = read_in(model, row[None], list(range(block_size)))
        together = read_in(model, torch.stack([*idx, row]), list(range(block_size)))
        close(together[-1:], alone, atol=1e-9)


@writing.holds
def reads_each_token_once(library, B):
    """Within the context: the prompt in one reading, then token after token, and the last never."""
    model, shown = make(library, 16), []
    model.token_embedding_table.register_forward_hook(lambda _, ids, out: shown.append(ids[0].shape[1]))
    model.generate(draw_ids(B, 5), 7)
    assert shown == [5, *[1] * 6]


@writing.holds
def starts_again_with_what_it_keeps(library, B, T, block_size, new):
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
        assert torch.equal(write(model.generate, idx, new, keep=keep), expected)


@writing.holds
def pads_as_if_alone(library, block_size):
    """Prompts of different lengths, in one batch: the same logits, and greedily the same texts, as alone."""
    model, new = make(library, block_size), 2 * block_size
    lengths = (1, max(1, block_size - 3), max(1, block_size // 2))
    prompts = [(1 + draw_ids(n, vocab_size=10, seed=n)).tolist() for n in lengths]
    idx, pad = library.left_padded(prompts)
    out = model.generate(idx, new, top_k=1, pad=pad)
    for row, filling, prompt in zip(out, pad, prompts, strict=True):
        assert torch.equal(row[filling:], model.generate(torch.tensor([prompt]), new, top_k=1)[0])
    for prompt in prompts:  # drawn as well, behind 3 columns of filling that leave the window in time
        padded = torch.tensor([[0] * 3 + prompt])
        drawn = write(model.generate, padded, new, pad=torch.tensor([3]))
        assert torch.equal(drawn[:, 3:], write(model.generate, padded[:, 3:], new))
    caches, unread = model.new_caches(3), idx
    for token in range(block_size - idx.shape[1] + 1):
        for row, prompt in zip(model.read(unread, caches, pad), prompts, strict=True):
            close(row, model(torch.tensor([prompt]))[0][0, -1], atol=1e-9)
            prompt.append(token % V)
        unread = torch.full((3, 1), token % V)


test_at_any_size = writing.at_any_size(B=range(1, 4), T=range(2, 10), block_size=range(2, 7), new=range(10))


@settings(deadline=None, max_examples=12)
@given(
    n_head=st.integers(1, 3), n_layer=st.integers(1, 3), bias=st.booleans(), tied=st.booleans(),
    activation=st.sampled_from(sorted(nanogpt.ACTIVATIONS)), temperature=st.floats(0.3, 2),
    top_k=st.none() | st.integers(1, V),
)  # fmt: skip
def test_cached_is_cacheless_for_any_configuration(
    n_head, n_layer, bias, tied, activation, temperature, top_k
):
    choices = {"bias": bias, "tied": tied, "activation": activation}
    model = make(nanogpt, 7, n_embd=4 * n_head, n_head=n_head, n_layer=n_layer, **choices)
    how = {"temperature": temperature, "top_k": top_k}
    expected = write(AutoregressiveModel.generate, model, draw_ids(2, 4), 12, **how)
    assert torch.equal(write(model.generate, draw_ids(2, 4), 12, **how), expected)


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


def test_a_text_can_be_trained_on():
    """Writing builds no graph, and takes ids of 32 bits for those of 64."""
    model, idx = make(nanogpt, 6), draw_ids(2, 3)
    out = write(model.generate, idx, 4)
    assert torch.equal(write(model.generate, idx.int(), 4), out) and not out.requires_grad
    model(out[:, :6], out[:, 1:])[1].backward()
    assert model.lm_head.weight.grad.abs().sum() > 0


def test_by_hand():
    """Two columns of filling before the second row; three tokens read, two new ones behind them."""
    pad = torch.tensor([0, 2])
    assert positions_after(3, 2, pad).tolist() == [[3, 4], [1, 2]]
    assert positions_after(0, 3, pad).tolist() == [[0, 1, 2], [0, 0, 0]]
    assert mask_after(3, 2, pad)[:, 0].int().tolist() == [
        [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]],
        [[0, 0, 1, 1, 0], [0, 0, 1, 1, 1]],
    ]
    assert mask_after(0, 3, pad)[1, 0].int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    idx, filling = left_padded([[5, 6, 7], [8]])
    assert idx.tolist() == [[5, 6, 7], [0, 0, 8]] and filling.tolist() == [0, 2]


def test_a_cache_that_was_full_can_be_used_again():
    cache, four = KVCache(1, 1, 4, 2, like=torch.zeros(1)), torch.zeros(1, 1, 4, 2)
    cache.extend(four, four)
    with pytest.raises(ValueError, match="with T at most 0"):
        cache.extend(four[:, :, :1], four[:, :, :1])
    cache.clear()
    assert cache.extend(four, four)[0].shape == (1, 1, 4, 2)


def generating(idx=None, **dials):
    """`generate`, from a prompt of two tokens unless told otherwise, as a job."""
    return partial(make(nanogpt, 4).generate, draw_ids(1, 2) if idx is None else idx, 1, **dials)


def extending(*shape):
    return KVCache(2, 3, 4, 4, like=torch.zeros(1)).extend, torch.zeros(shape), torch.zeros(shape)


ROOM = "expected (2, 3, T, 4) with T at most 4, the room that is left"
test_what_is_refused = refusals(
    ("keep is 0; expected 1 to block_size = 4", generating(keep=0)),
    ("keep is 5; expected 1 to block_size = 4", generating(keep=5)),
    ("pad is [2]; expected 1 numbers from 0 to 1", generating(pad=torch.tensor([2]))),
    ("pad is [-1]; expected 1 numbers from 0 to 1", generating(pad=torch.tensor([-1]))),
    ("pad is [0, 0]; expected 1 numbers", generating(pad=torch.tensor([0, 0]))),
    ("temperature is 0; expected a positive number", generating(temperature=0)),
    ("top_k is 12; expected 1 to 11", generating(top_k=12)),
    ("top_p is 0; expected a share of the probability", generating(top_p=0)),
    ("idx has rows of 0 tokens; expected at least one", generating(draw_ids(2, 0))),
    ("idx has shape (3,); expected two dimensions", generating(torch.tensor([1, 2, 3]))),
    (TypeError, "idx has dtype torch.float32; expected token ids", generating(torch.zeros(1, 3))),
    ("the prompts have [] tokens; expected at least one prompt, none of them empty", left_padded, []),
    ("the prompts have [1, 0] tokens; expected at least one prompt", left_padded, [[1], []]),
    *((ROOM, *extending(*shape)) for shape in [(2, 3, 5, 4), (1, 3, 1, 4), (2, 3, 1, 5)]),
)

LENGTH = "        self.length = end\n"
WINDOW, KEPT = "if idx.shape[1] - start > self.block_size", "start = idx.shape[1] - keep"
UNREAD = "unread = idx[:, start + caches[0].length :]"
DRAWN = "next_token(logits, temperature, top_k, top_p)"
writing.faults = [
    ("one token lost", kv_cache, LENGTH, LENGTH.replace("end", "end - 1"),
     (reads_each_token_once, reads_in_any_pieces)),
    ("not kept", kv_cache, LENGTH, "", (reads_each_token_once, reads_in_any_pieces)),
    ("the newest not returned", kv_cache, "self.keys[:, :, :end], self.values[:, :, :end]",
     "self.keys[:, :, :max(1, start)], self.values[:, :, :max(1, start)]", writes_chapter_06s_text),
    ("values for keys", kv_cache, "return self.keys[", "return self.values[", reads_in_any_pieces),
    ("one cache for all rows", kv_cache, "return self.keys[:, :, :end]",
     "return self.keys[:1, :, :end].expand(B, -1, -1, -1)", keeps_rows_apart),
    ("never cleared", kv_cache, '""\n        self.length = 0', '""',
     raises(IndexError, writes_chapter_06s_text)),
    ("positions from 0", kv_cache, "torch.arange(seen, seen + T, device", "torch.arange(T, device",
     reads_in_any_pieces),
    ("positions off by one", kv_cache, "(columns - pad[:, None])", "(columns - pad[:, None] - 1)",
     reads_in_any_pieces),
    ("positions count the filling", kv_cache, "(columns - pad[:, None])", "(columns + 0 * pad[:, None])",
     pads_as_if_alone),
    ("mask from the first key", kv_cache, "causal_mask(seen + T)[seen:]", "causal_mask(seen + T)[:T]",
     reads_in_any_pieces),
    ("filling is seen", kv_cache, "& token[:, None] |", "& (token[:, None] | True) |", pads_as_if_alone),
    ("the future is seen", kv_cache, "(past &", "((past | True) &", reads_in_any_pieces),
    ("filled at the right", kv_cache, "[0] * (T - len(prompt)) + prompt", "prompt + [0] * (T - len(prompt))",
     pads_as_if_alone),
    ("temperature not handed on", nanogpt, DRAWN, DRAWN.replace("temperature", "1.0"),
     writes_chapter_06s_text),
    ("top k not handed on", nanogpt, DRAWN, DRAWN.replace("top_k", "None"), writes_chapter_06s_text),
    ("top p not handed on", nanogpt, DRAWN, DRAWN.replace(", top_p", ""), writes_chapter_06s_text),
    ("window too large", nanogpt, WINDOW, f"{WINDOW} + 1", raises(IndexError, writes_chapter_06s_text)),
    ("window too small", nanogpt, WINDOW, WINDOW.replace(">", ">="), starts_again_with_what_it_keeps),
    ("one token too few kept", nanogpt, KEPT, KEPT.replace("keep", "max(1, keep - 1)"),
     starts_again_with_what_it_keeps),
    ("always half the context", nanogpt, KEPT, KEPT.replace("keep", "self.block_size // 2"),
     starts_again_with_what_it_keeps),
    ("read again at each step", nanogpt, UNREAD,
     "[cache.clear() for cache in caches]; unread = idx[:, start:]",
     reads_each_token_once),
    ("last token not read", nanogpt, UNREAD, UNREAD.replace(":]", ": -1]"), writes_chapter_06s_text),
    ("drawn from the first place", nanogpt, "self.lm_head(x[:, -1])", "self.lm_head(x[:, 0])",
     reads_in_any_pieces),
    ("filling stays when the window moves", nanogpt, "(pad - start).clamp(min=0)", "pad", pads_as_if_alone),
    ("no mask for several behind a past", nanogpt, "if T > 1 or pad is not None", "if pad is not None",
     reads_in_any_pieces),
    ("no mask for filling", nanogpt, "if T > 1 or pad is not None", "if T > 1 and seen", pads_as_if_alone),
    ("all layers one cache", nanogpt, "block(x, cache, mask)", "block(x, caches and caches[0], mask)",
     reads_in_any_pieces),
]  # fmt: skip
test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(writing)
