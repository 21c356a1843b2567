"""Sizes by formula, chapter 13: parameters, operations and memory as the model has them; planted faults.

Each property is a function of an implementation: the module `sizing`, or a copy of it with one place of its
source changed. The module passes them all; a planted fault fails exactly those that the table names.
"""

from dataclasses import replace

import pytest
import torch
from faults import fault_tests
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from lecture_lib import sizing
from lecture_lib.gpt import GPT, GPTConfig
from lecture_lib.nanogpt import ACTIVATIONS, NanoGPT, NanoGPTConfig
from lecture_lib.sizing import PUBLISHED, cache_bytes, forward_flops, parameter_counts, training_bytes

BASE = NanoGPTConfig(vocab_size=19, block_size=10, n_embd=12, n_head=3, n_layer=2)
CHOICES = [{}, {"bias": False}, {"tied": False}, {"activation": "relu"}, {"bias": False, "tied": False}]
ALL = [replace(BASE, **choice) for choice in CHOICES]


def kept_for_backward(model: NanoGPT, idx: torch.Tensor) -> int:
    """Bytes of floating numbers that a forward pass keeps, each storage once, without parameters."""
    kept, alive = {}, list(model.parameters())

    def pack(tensor):
        alive.append(tensor)
        if tensor.is_floating_point():
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(idx, idx)
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    return sum(size for address, size in kept.items() if address not in parameters)


# ---------------------------------------------------------------- the properties, for configurations


def counts_every_parameter(library, configs):
    """In sum, and part by part."""
    for config in configs:
        with torch.device("meta"):
            model = NanoGPT(config)
        names = {
            "embeddings": "embedding", "attention": ".sa.", "feed-forward": ".ffwd.", "norms": ".ln",
            "logits": "lm_head",
        }  # fmt: skip
        found = {
            part: sum(p.numel() for name, p in model.named_parameters() if word in name)
            for part, word in names.items()
        }
        assert library.parameter_counts(config) == found
        assert sum(found.values()) == sum(p.numel() for p in model.parameters())


def counts_torchs_operations(library, configs):
    """Exactly what torch counts while the model runs; forward and backward are three times the forward."""
    for config in configs:
        for T in (config.block_size, 1 + config.block_size // 2):
            with torch.device("meta"):
                model, idx = NanoGPT(config), torch.zeros(2, T, dtype=torch.long)
                with FlopCounterMode(display=False) as forward:
                    model(idx)
                with FlopCounterMode(display=False) as both:
                    model(idx, idx)[1].backward()
            flops = library.forward_flops(config, T)
            assert forward.get_total_flops() == 2 * T * sum(flops.values())
            assert both.get_total_flops() == 3 * forward.get_total_flops()
        assert library.forward_flops(config) == library.forward_flops(config, config.block_size)


def counts_the_bytes_of_training(library, configs):
    """Weights, gradients and AdamW's averages to the byte; activations but for one number of the loss."""
    for config in configs:
        model, optimizer = NanoGPT(config), None
        for B, T in ((1, config.block_size), (3, 1 + config.block_size // 2)):
            idx, needs = torch.zeros(B, T, dtype=torch.long), library.training_bytes(config, B, T)
            assert kept_for_backward(model, idx) == needs["activations"] + 4
            optimizer = optimizer or torch.optim.AdamW(model.parameters())
            model(idx, idx)[1].backward()
            optimizer.step()
            averages = [t for state in optimizer.state.values() for t in state.values() if t.dim()]
            assert needs["weights"] == sum(p.nbytes for p in model.parameters())
            assert needs["gradients"] == sum(p.grad.nbytes for p in model.parameters())
            assert needs["AdamW"] == sum(t.nbytes for t in averages)
        assert library.training_bytes(config, 2) == library.training_bytes(config, 2, config.block_size)


def counts_the_bytes_of_the_cache(library, configs):
    for config in configs:
        for B in (1, 3):
            caches = NanoGPT(config).new_caches(B)
            held = sum(cache.keys.nbytes + cache.values.nbytes for cache in caches)
            assert library.cache_bytes(config, B) == held
            assert library.cache_bytes(config, B, T=1, width=2) * 2 * config.block_size == held


PROPERTIES = [
    counts_every_parameter,
    counts_torchs_operations,
    counts_the_bytes_of_training,
    counts_the_bytes_of_the_cache,
]

# ---------------------------------------------------------------- what is right passes


@pytest.mark.parametrize("holds", PROPERTIES, ids=lambda holds: holds.__name__)
def test_all_choices(holds):
    holds(sizing, ALL)


@settings(deadline=None, max_examples=8)
@given(
    n_head=st.integers(1, 3), hs=st.integers(2, 8), n_layer=st.integers(1, 3), vocab_size=st.integers(2, 40),
    block_size=st.integers(2, 12), bias=st.booleans(), tied=st.booleans(),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
)  # fmt: skip
def test_any_configuration(n_head, hs, n_layer, vocab_size, block_size, bias, tied, activation):
    sizes = (vocab_size, block_size, n_head * hs, n_head, n_layer)
    for holds in PROPERTIES:
        holds(sizing, [NanoGPTConfig(*sizes, bias=bias, tied=tied, activation=activation)])


def test_published_sizes():
    totals = {name: sum(parameter_counts(config).values()) for name, config in PUBLISHED.items()}
    assert totals == {
        "GPT-2 124M": 124_439_808,
        "GPT-2 1.5B": 1_557_611_200,
        "GPT-3 175B": 174_604_259_328,
    }
    assert all(config.n_embd // config.n_head in (64, 128) for config in PUBLISHED.values())


def test_gpt3s_training_as_published():
    """Brown et al. 2020, table D.1: 3.14e23 operations for 300 billion tokens, without the looking."""
    parts = forward_flops(PUBLISHED["GPT-3 175B"])
    without = 3 * (sum(parts.values()) - parts["looking"]) * 300e9
    assert abs(without / 3.14e23 - 1) < 0.005


def test_the_lectures_model_has_three_vectors_a_block_less():
    """Chapter 11's heads have no biases; NanoGPT has them, as zeros."""
    size = GPTConfig(block_size=256, n_embd=384, n_head=6, n_layer=6)
    with torch.device("meta"):
        lecture = sum(p.numel() for p in GPT(size).parameters())
    same = NanoGPTConfig(65, 256, 384, 6, 6, tied=False, activation="relu")
    assert sum(parameter_counts(same).values()) - lecture == 6 * 3 * 384


def test_by_hand():
    """One block of 2 channels, one head, 3 tokens known, a context of 4, all choices as they are."""
    config = NanoGPTConfig(vocab_size=3, block_size=4, n_embd=2, n_head=1, n_layer=1)
    assert parameter_counts(config) == {
        "embeddings": 14, "attention": 24, "feed-forward": 42, "norms": 12, "logits": 0,
    }  # fmt: skip
    assert forward_flops(config, T=1) == {"attention": 32, "looking": 8, "feed-forward": 64, "logits": 12}
    assert training_bytes(config, B=1, T=1)["activations"] == 4 * (37 + 6 + 3)
    assert cache_bytes(config) == 2 * 4 * 2 * 4


# ---------------------------------------------------------------- planted faults are caught

COUNT, FLOPS, BYTES, CACHE = PROPERTIES

# the fault, its place in the source, what it becomes, and all properties that must notice
FAULTS = [
    ("positions not counted", "V * C + config.block_size * C", "V * C", {COUNT, BYTES}),
    ("tied logits counted", "0 if config.tied else V * C + V", "V * C", {COUNT, BYTES}),
    ("no bias in the lecture's logits", "0 if config.tied else V * C + V", "0 if config.tied else V * C",
     {COUNT, BYTES}),
    ("queries, keys and values without bias", "bias * 4 * C", "bias * C", {COUNT, BYTES}),
    ("biases always", "int(config.bias)", "1", {COUNT, BYTES}),
    ("last norm forgotten", "(2 * L + 1) * (1 + bias)", "2 * L * (1 + bias)", {COUNT, BYTES}),
    ("multiplications alone", '"feed-forward": L * 2 * 8 * C**2', '"feed-forward": L * 8 * C**2', {FLOPS}),
    ("the look at values forgotten", "L * 4 * (config", "L * 2 * (config", {FLOPS}),
    ("half of the looking, by causality", "L * 4 * (config", "L * 2 * 1 * (config", {FLOPS}),
    ("looking for each head", "L * 4 * (config", "L * config.n_head * 4 * (config", {FLOPS}),
    ("logits forgotten", '"logits": 2 * V * C', '"logits": 0', {FLOPS}),
    ("context ignored", "(config.block_size if T is None else T) * C,", "config.block_size * C,", {FLOPS}),
    ("one average for AdamW", '"AdamW": 8', '"AdamW": 4', {BYTES}),
    ("the input of ReLU kept", "(12 if config", "(16 if config", {BYTES}),
    ("the input of GELU not kept", "else 16) * C", "else 12) * C", {BYTES}),
    ("all weights kept", "config.n_head + 4", "config.n_head * T + 4", {BYTES}),
    ("the batch forgotten", "4 * B * T * (L", "4 * T * (L", {BYTES}),
    ("logits not kept", "2 * C + 2 + V)", "2 * C + 2)", {BYTES}),
    ("keys alone", "return 2 * config.n_layer", "return config.n_layer", {CACHE}),
    ("16 bits", "width: int = 4", "width: int = 2", {CACHE}),
    ("one text", "config.n_layer * B *", "config.n_layer *", {CACHE}),
]  # fmt: skip


test_a_planted_fault_is_caught, test_every_property_catches_a_fault = fault_tests(
    {sizing: (PROPERTIES, FAULTS)}, configs=ALL
)
