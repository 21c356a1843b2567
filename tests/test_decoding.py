"""Weights laid out for one token at a time, chapter 13b: the same products and text, and half the bytes."""

from contextlib import contextmanager
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import Suite, close, draw_ids, raises, seeded, suite_tests
from torch import nn

from lecture_lib import decoding
from lecture_lib.nanogpt import NanoGPT, NanoGPTConfig

CONFIG = NanoGPTConfig(vocab_size=11, block_size=8, n_embd=12, n_head=2, n_layer=2)

layers = Suite(decoding, pieces=3)
write = partial(seeded, seed=7)


def trained(**choices):
    """A model with opinions."""
    torch.manual_seed(1337)
    model = NanoGPT(NanoGPTConfig(**vars(CONFIG) | choices)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.7)
    return model


def split(library, n_in, n_out, pieces, bias=True, dtype=None):
    torch.manual_seed(1)
    layer = nn.Linear(n_in, n_out, bias=bias).double()
    return layer, library.SplitLinear(layer, pieces, dtype)


@contextmanager
def threads(number):
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pieces_of(model, library):
    layers = [layer for layer in model.body.modules() if isinstance(layer, library.SplitLinear)]
    return {layer.weight.shape[0] for layer in layers}


@layers.holds
def computes_what_the_layer_computes(library, pieces):
    for n_in, n_out, bias in ((12, 5, True), (12, 36, False)):
        layer, other = split(library, n_in, n_out, pieces, bias)
        for B, T in ((1, 1), (2, 3)):
            x = torch.randn(B, T, n_in, dtype=torch.float64)
            y = other(x)
            assert y.shape == (B, T, n_out)
            close(y, layer(x), atol=1e-12)


@layers.holds
def weights_lie_in_pieces_of_rows(library, pieces):
    layer, other = split(library, 12, 5, pieces)
    assert other.weight.shape == (pieces, 12 // pieces, 5) and other.weight.is_contiguous()
    assert torch.equal(other.weight.flatten(0, 1), layer.weight.t())


@layers.holds
def halves_the_bytes(library, pieces):
    """Rounded weights, and the answer in the input's own dtype, summed up in it."""
    layer, other = split(library, 12, 5, pieces, dtype=torch.bfloat16)
    assert other.weight.dtype == torch.bfloat16
    x = torch.randn(1, 2, 12, dtype=torch.float64)
    y, expected = other(x), layer(x)
    assert y.dtype == torch.float64
    assert 0 < (y - expected).abs().max() < 0.05
    parts = torch.bmm(x.view(2, pieces, -1).transpose(0, 1).bfloat16(), other.weight).double()
    assert torch.equal(y[0], parts.sum(0) + layer.bias)


@layers.holds
def a_copy_writes_the_same(library, pieces):
    with threads(pieces):
        for choices in ({}, {"bias": False, "tied": False}):
            model, idx = trained(**choices), draw_ids(2, 3)
            before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            twin = library.for_writing(model)
            assert model.training and not twin.training
            assert not any(isinstance(layer, nn.Linear) for layer in twin.body.modules())
            text = write(twin.generate, idx, 20, keep=5)
            assert torch.equal(text, write(model.eval().generate, idx, 20, keep=5))
            assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
            assert pieces_of(twin, library) == {pieces}


@layers.holds
def pieces_divide_the_inputs(library):
    """Whatever the number of threads: the greatest number of pieces that divides both."""
    with threads(8):
        twin = library.for_writing(trained())  # its layers have 12 and 48 inputs
    assert pieces_of(twin, library) == {4, 8}


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([(n, p) for n in (1, 2, 6, 12) for p in (1, 2, 3, 6, 12) if n % p == 0]), st.booleans()
)
def test_any_number_of_pieces_gives_the_same(sizes, bias):
    n_in, pieces = sizes
    layer, other = split(decoding, n_in, 4, pieces, bias)
    x = torch.randn(2, 2, n_in, dtype=torch.float64)
    close(other(x), layer(x), atol=1e-12)


def test_pieces_that_do_not_divide_are_refused():
    with pytest.raises(RuntimeError, match="invalid"):
        split(decoding, 12, 5, 5)


layers.faults = [
    ("not transposed", "layer.weight.detach().t().contiguous()", "layer.weight.detach().contiguous()",
     computes_what_the_layer_computes),
    ("one piece alone", ".sum(0, dtype=x.dtype)", "[0].to(x.dtype)", computes_what_the_layer_computes),
    ("without its bias", "if self.bias is None else y + self.bias", "", computes_what_the_layer_computes),
    ("pieces interleaved", "x.reshape(-1, pieces, n_rows).transpose(0, 1)",
     "x.reshape(-1, n_rows, pieces).permute(2, 0, 1)", computes_what_the_layer_computes),
    ("summed up in half precision", ".sum(0, dtype=x.dtype)", ".sum(0)", halves_the_bytes),
    ("not rounded", ".to(dtype)", "", halves_the_bytes),
    ("in place", "copy.deepcopy(model).eval()", "model.eval()", a_copy_writes_the_same),
    ("trains on", "copy.deepcopy(model).eval()", "copy.deepcopy(model)", a_copy_writes_the_same),
    ("always whole", "math.gcd(layer.in_features, torch.get_num_threads())", "1",
     a_copy_writes_the_same),
    ("as many pieces as threads", "math.gcd(layer.in_features, torch.get_num_threads())",
     "torch.get_num_threads()", raises(RuntimeError, pieces_divide_the_inputs)),
    ("rows of another order", "view(pieces, -1, layer.out_features)",
     "view(-1, pieces, layer.out_features).transpose(0, 1).contiguous()", weights_lie_in_pieces_of_rows),
]  # fmt: skip

test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(layers)
