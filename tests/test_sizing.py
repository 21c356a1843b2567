"""Sizes by formula, chapter 13: parameters, operations and memory as the model has them."""

from dataclasses import replace

import torch
from kit import Suite, count, suite_tests
from torch.utils.flop_counter import FlopCounterMode

from lecture_lib import sizing
from lecture_lib.gpt import GPT, GPTConfig
from lecture_lib.nanogpt import NanoGPT, NanoGPTConfig
from lecture_lib.sizing import PUBLISHED, forward_flops, parameter_counts

CHOICES = [{}, {"bias": False}, {"tied": False}, {"activation": "relu"}, {"bias": False, "tied": False}]


def in_all_ways(*sizes):
    return [replace(NanoGPTConfig(*sizes), **choice) for choice in CHOICES]


formulas = Suite(sizing, configs=in_all_ways(19, 10, 12, 3, 2))


def on_meta(config):
    with torch.device("meta"):
        return NanoGPT(config)


def kept_for_backward(model, idx):
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


@formulas.holds
def counts_every_parameter(library, configs):
    """In sum, and part by part."""
    words = {"embeddings": "embedding", "attention": ".sa.", "feed-forward": ".ffwd.", "norms": ".ln"}
    for config in configs:
        model = on_meta(config)
        found = {
            part: sum(p.numel() for name, p in model.named_parameters() if word in name)
            for part, word in (words | {"logits": "lm_head"}).items()
        }
        assert library.parameter_counts(config) == found and sum(found.values()) == count(model)


@formulas.holds
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
            flops = 2 * T * sum(library.forward_flops(config, T).values())
            assert [forward.get_total_flops(), both.get_total_flops()] == [flops, 3 * flops]
        assert library.forward_flops(config) == library.forward_flops(config, config.block_size)


@formulas.holds
def counts_the_bytes_of_training(library, configs):
    """Weights, gradients and AdamW's averages to the byte; activations but for one number of the loss."""
    for config in configs:
        model = NanoGPT(config)
        optimizer = torch.optim.AdamW(model.parameters())
        for B, T in ((1, config.block_size), (3, 1 + config.block_size // 2)):
            idx, needs = torch.zeros(B, T, dtype=torch.long), library.training_bytes(config, B, T)
            assert kept_for_backward(model, idx) == needs["activations"] + 4
            model(idx, idx)[1].backward()
            optimizer.step()
            averages = [t for state in optimizer.state.values() for t in state.values() if t.dim()]
            assert needs["weights"] == sum(p.nbytes for p in model.parameters())
            assert needs["gradients"] == sum(p.grad.nbytes for p in model.parameters())
            assert needs["AdamW"] == sum(t.nbytes for t in averages)
        assert library.training_bytes(config, 2) == library.training_bytes(config, 2, config.block_size)


@formulas.holds
def counts_the_bytes_of_the_cache(library, configs):
    for config in configs:
        for B in (1, 3):
            held = sum(cache.keys.nbytes + cache.values.nbytes for cache in on_meta(config).new_caches(B))
            assert library.cache_bytes(config, B) == held
            assert library.cache_bytes(config, B, T=1, width=2) * 2 * config.block_size == held


# vocab_size, block_size, n_embd, n_head, n_layer
test_at_any_size = formulas.at_any_size(
    configs=[in_all_ways(*sizes) for sizes in ((2, 2, 2, 1, 1), (40, 12, 21, 3, 3), (7, 5, 8, 2, 1))]
)


def test_published_sizes():
    totals = {name: sum(parameter_counts(config).values()) for name, config in PUBLISHED.items()}
    assert list(totals.values()) == [124_439_808, 1_557_611_200, 174_604_259_328]
    assert all(config.n_embd // config.n_head in (64, 128) for config in PUBLISHED.values())


def test_gpt3s_training_as_published():
    """Brown et al. 2020, table D.1: 3.14e23 operations for 300 billion tokens, without the looking."""
    parts = forward_flops(PUBLISHED["GPT-3 175B"])
    without = 3 * (sum(parts.values()) - parts["scores"]) * 300e9
    assert abs(without / 3.14e23 - 1) < 0.005


def test_the_lectures_model_has_three_vectors_a_block_less():
    """Chapter 11's heads have no biases; NanoGPT has them, as zeros."""
    with torch.device("meta"):
        lecture = count(GPT(GPTConfig(block_size=256, n_embd=384, n_head=6, n_layer=6)))
    same = NanoGPTConfig(65, 256, 384, 6, 6, tied=False, activation="relu")
    assert sum(parameter_counts(same).values()) - lecture == 6 * 3 * 384


HEAD, LOOKING = "0 if config.tied else V * C + V", "L * 4 * (config"
formulas.faults = [
    ("positions not counted", "V * C + config.block_size * C", "V * C", counts_every_parameter),
    ("tied logits counted", HEAD, "V * C", counts_every_parameter),
    ("no bias in the lecture's logits", HEAD, "0 if config.tied else V * C", counts_every_parameter),
    ("queries, keys and values without bias", "bias * 4 * C", "bias * C", counts_every_parameter),
    ("biases always", "int(config.bias)", "1", counts_every_parameter),
    ("last norm forgotten", "(2 * L + 1) * (1 + bias)", "2 * L * (1 + bias)", counts_every_parameter),
    ("multiplications alone", '"feed-forward": L * 2 * 8 * C**2', '"feed-forward": L * 8 * C**2',
     counts_torchs_operations),
    ("the look at values forgotten", LOOKING, "L * 2 * (config", counts_torchs_operations),
    ("half of the looking, by causality", LOOKING, "L * 2 * 1 * (config", counts_torchs_operations),
    ("looking for each head", LOOKING, "L * config.n_head * 4 * (config", counts_torchs_operations),
    ("logits forgotten", '"logits": 2 * V * C', '"logits": 0', counts_torchs_operations),
    ("context ignored", "(config.block_size if T is None else T) * C,", "config.block_size * C,",
     counts_torchs_operations),
    ("one average for AdamW", '"AdamW": 8', '"AdamW": 4', counts_the_bytes_of_training),
    ("the input of ReLU kept", "(12 if config", "(16 if config", counts_the_bytes_of_training),
    ("the input of GELU not kept", "else 16) * C", "else 12) * C", counts_the_bytes_of_training),
    ("all weights kept", "config.n_head + 4", "config.n_head * T + 4", counts_the_bytes_of_training),
    ("the batch forgotten", "4 * B * T * (L", "4 * T * (L", counts_the_bytes_of_training),
    ("logits not kept", "2 * C + 2 + V)", "2 * C + 2)", counts_the_bytes_of_training),
    ("keys alone", "return 2 * config.n_layer", "return config.n_layer", counts_the_bytes_of_the_cache),
    ("16 bits", "width: int = 4", "width: int = 2", counts_the_bytes_of_the_cache),
    ("one text", "config.n_layer * B *", "config.n_layer *", counts_the_bytes_of_the_cache),
]  # fmt: skip
test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(formulas)
