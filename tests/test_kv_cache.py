"""Writing with a cache, chapters 13 and 13b: cached equals computed again, whatever is read and written."""

import inspect
from functools import partial
from types import ModuleType

import torch
from kit import Suite, close, draw_ids, planted, raises, refusals, seeded, suite_tests

from lecture_lib import kv_cache, nanogpt
from lecture_lib.generation import AutoregressiveModel, next_token
from lecture_lib.kv_cache import KVCache, left_padded
from lecture_lib.nanogpt import NanoGPTConfig

V = 11  # size of the vocabulary


def assembled(cache=kv_cache, model=nanogpt):
    """A copy of the model's module that uses what is in the cache's module."""
    copy = ModuleType("assembled")
    vars(copy).update(vars(model))
    if cache is not kv_cache:
        exec(inspect.getsource(model), vars(copy))
    vars(copy).update({name: getattr(cache, name) for name in kv_cache.__all__})
    return copy


def with_fault(_, module, old, new):
    return assembled(**{"cache" if module is kv_cache else "model": planted(module, old, new)})


writing = Suite(assembled(), plant=with_fault, B=4, T=2, block_size=8, new=14, choices={})
write = partial(seeded, seed=7)


def make(library, block_size, **choices):
    """A model with opinions: another context gives another text."""
    sizes = {"vocab_size": V, "block_size": block_size, "n_embd": 6, "n_head": 2, "n_layer": 2, "tied": False}
    torch.manual_seed(1337)
    model = library.NanoGPT(NanoGPTConfig(**sizes | choices)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.7)
        for block in model.body.blocks:
            block.sa.proj.weight *= 5  # the past matters more than the token itself
    return model


@writing.holds
def writes_chapter_06s_text(library, B, T, block_size, new, choices):
    """Token for token under the same seed, with each dial, from short prompts and ones that don't fit."""
    model, idx = make(library, block_size, **choices), draw_ids(B, T)
    for how in ({}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.8}):
        expected = write(AutoregressiveModel.generate, model, idx, new, **how)
        text = write(model.generate, idx.int(), new, **how)  # ids of 32 bits will do
        assert torch.equal(text, expected) and not text.requires_grad


@writing.holds
def reads_in_any_pieces(library, B, block_size, choices):
    """At once, token by token, or cut anywhere: the logits are those of the whole."""
    model, idx = make(library, block_size, **choices), draw_ids(B, block_size)
    for end in range(1, block_size + 1):
        for cuts in ([*range(end)], *([0, cut] for cut in range(1, end))):
            caches = model.new_caches(B)
            for start, stop in zip(cuts, [*cuts[1:], end], strict=True):
                logits = model.read(idx[:, start:stop], caches)
            close(logits, model(idx[:, :end])[0][:, -1], atol=1e-9)


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


@writing.holds
def streams_what_it_generates(library, B, T, new):
    """Token by token, each as soon as it is drawn; reading goes on only when the next one is asked for."""
    model, idx, read = make(library, 4), draw_ids(B, T), []
    model.token_embedding_table.register_forward_hook(lambda *_: read.append(1))
    torch.manual_seed(7)
    tokens = []
    for token in model.stream(idx, new, keep=3):
        tokens.append(token)
        assert token.shape == (B, 1) and len(read) == len(tokens)
    assert len(tokens) == new and torch.equal(
        torch.cat([idx, *tokens], dim=1), write(model.generate, idx, new, keep=3)
    )


test_at_any_size = writing.at_any_size(
    B=range(1, 4), T=range(2, 10), block_size=range(2, 7), new=range(1, 10),
    choices=[{"bias": False}, {"tied": True, "activation": "relu"}, {"n_head": 3, "n_layer": 3}],
)  # fmt: skip


def test_prompts_end_together_behind_zeros():
    idx, pad = left_padded([[5, 6, 7], [8], [9, 10]])
    assert idx.tolist() == [[5, 6, 7], [0, 0, 8], [0, 9, 10]] and pad.tolist() == [0, 2, 1]


def test_positions_and_masks_are_where_the_padding_is():
    pad = torch.zeros(2, dtype=torch.int64, device="meta")
    assert kv_cache.positions_after(1, 3, pad).device == kv_cache.mask_after(1, 3, pad).device == pad.device


def generating(*shape, **dials):
    """`generate`, from a prompt of this shape, as a job."""
    return partial(make(nanogpt, 4).generate, draw_ids(*shape), 1, **dials)


EXTEND, ROOM = KVCache(2, 3, 4, 4, like=torch.zeros(1)).extend, "T at most 4, the room that is left"
test_what_is_refused = refusals(
    ("keep is 0; expected 1 to block_size = 4", generating(1, 2, keep=0)),
    ("keep is 5; expected 1 to block_size = 4", generating(1, 2, keep=5)),
    ("pad is [2]; expected 1 numbers from 0 to 1", generating(1, 2, pad=torch.tensor([2]))),
    ("pad is [-1]; expected 1 numbers from 0 to 1", generating(1, 2, pad=torch.tensor([-1]))),
    ("pad is [0, 0]; expected 1 numbers", generating(1, 2, pad=torch.tensor([0, 0]))),
    ("idx has rows of 0 tokens; expected at least one", generating(2, 0)),
    ("the prompts have [] tokens; expected at least one prompt, none of them empty", left_padded, []),
    ("the prompts have [1, 0] tokens; expected at least one prompt", left_padded, [[1], []]),
    *((ROOM, EXTEND, k, k) for k in map(torch.zeros, [(2, 3, 5, 4), (1, 3, 1, 4), (2, 3, 1, 5)])),
)

LENGTH = "        self.length = end\n"
WINDOW, KEPT = "if idx.shape[1] - start > self.block_size", "start = idx.shape[1] - keep"
UNREAD = "unread = idx[:, start + caches[0].length :]"
DRAWN = "next_token(logits, temperature, top_k, top_p)"
MASKED = "if T > 1 or pad is not None"
BY_KEYS = "self.keys[:, :, :end], self.values[:, :, :end]"
writing.faults = [
    ("one token lost", kv_cache, LENGTH, LENGTH.replace("end", "end - 1"), reads_each_token_once),
    ("not kept", kv_cache, LENGTH, "", reads_each_token_once),
    ("the newest not returned", kv_cache, BY_KEYS, BY_KEYS.replace(":end", ":max(1, start)"),
     writes_chapter_06s_text),
    ("values for keys", kv_cache, BY_KEYS, BY_KEYS.replace("keys", "values"), reads_in_any_pieces),
    ("one cache for all rows", kv_cache, BY_KEYS, BY_KEYS.replace("[:,", "[:1].expand(B, -1, -1, -1)[:,", 1),
     reads_in_any_pieces),
    ("never cleared", kv_cache, '""\n        self.length = 0', '""',
     raises(IndexError, writes_chapter_06s_text)),
    ("positions from 0", kv_cache, "arange(seen, seen + T,", "arange(T,", reads_in_any_pieces),
    ("positions off by one", kv_cache, "(columns - pad[:, None])", "(columns - pad[:, None] - 1)",
     reads_in_any_pieces),
    ("positions count the filling", kv_cache, "- pad[:, None])", "+ 0 * pad[:, None])", pads_as_if_alone),
    ("mask from the first key", kv_cache, "causal_mask(seen + T)[seen:]", "causal_mask(seen + T)[:T]",
     reads_in_any_pieces),
    ("filling is seen", kv_cache, "& token[:, None] |", "& (token[:, None] | True) |", pads_as_if_alone),
    ("the future is seen", kv_cache, "(past &", "((past | True) &", reads_in_any_pieces),
    ("filled at the right", kv_cache, "[0] * (T - len(prompt)) + prompt", "prompt + [0] * (T - len(prompt))",
     pads_as_if_alone),
    ("the first row alone", nanogpt, "yield idx_next", "yield idx_next[:1]", streams_what_it_generates),
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
     "[cache.clear() for cache in caches]; unread = idx[:, start:]", reads_each_token_once),
    ("last token not read", nanogpt, UNREAD, UNREAD.replace(":]", ": -1]"), writes_chapter_06s_text),
    ("drawn from the first place", nanogpt, "lm_head(x[:, -1])", "lm_head(x[:, 0])", reads_in_any_pieces),
    ("filling stays when the window moves", nanogpt, "(pad - start).clamp(min=0)", "pad", pads_as_if_alone),
    ("no mask for several behind a past", nanogpt, MASKED, "if pad is not None", reads_in_any_pieces),
    ("no mask for filling", nanogpt, MASKED, "if T > 1 and seen", pads_as_if_alone),
    ("all layers one cache", nanogpt, "block(x, cache, mask)", "block(x, caches and caches[0], mask)",
     reads_in_any_pieces),
]  # fmt: skip
test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(writing)
