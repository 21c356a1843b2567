"""Chapter 16b: the modern block and Muon. Properties, and planted faults that they catch."""

import pytest
import torch
from faults import fault_tests, property_test
from hypothesis import given, settings
from hypothesis import strategies as st

from lecture_lib import modern_block, muon
from lecture_lib.gpt import GPTConfig

close = torch.testing.assert_close
CONFIG = GPTConfig(vocab_size=5, block_size=16, n_embd=16, n_head=2, n_layer=2)


# ---------------------------------------------------------------- the modern block


def unit_vectors_have_mean_square_1(library):
    x = 7 * torch.randn(3, 4, 16) + 2
    close(library.rms_norm(x).pow(2).mean(dim=-1), torch.ones(3, 4), rtol=0, atol=1e-4)
    close(library.rms_norm(3 * x), library.rms_norm(x), rtol=0, atol=1e-5)


def turning_is_relative(library):
    angles = library.rotary_angles(64, 8)
    q, k = torch.randn(2, 1, 8)
    products = [
        (library.rotate_pairs(q, angles[i : i + 1]) * library.rotate_pairs(k, angles[i - 3 : i - 2])).sum()
        for i in (3, 20, 63)
    ]
    close(torch.stack(products), products[0].expand(3), rtol=0, atol=1e-4)


def turning_keeps_lengths_and_tells_places_apart(library):
    x = torch.randn(1, 8).expand(64, 8)
    turned = library.rotate_pairs(x, library.rotary_angles(64, 8))
    close(turned.norm(dim=-1), x.norm(dim=-1), rtol=0, atol=1e-4)
    close(turned[0], x[0], rtol=0, atol=0)
    assert (turned[1:] - turned[:-1]).norm(dim=-1).min() > 0.1


def speeds_fall_from_1(library):
    angles = library.rotary_angles(3, 8)
    close(angles[1], torch.tensor([1, 1e-1, 1e-2, 1e-3]), rtol=1e-5, atol=0)
    close(angles[2], 2 * angles[1], rtol=1e-6, atol=0)


def qk_norm_makes_the_size_of_weights_irrelevant(library):
    attention, x = library.RotaryAttention(CONFIG), torch.randn(2, 16, 16)
    before = attention(x)
    with torch.no_grad():
        attention.qkv.weight[: 2 * 16] *= 50  # queries and keys
    close(attention(x), before, rtol=0, atol=1e-4)


def the_block_is_nothing_at_first(library):
    x = torch.randn(2, 16, 16)
    assert torch.equal(library.ModernBlock(CONFIG)(x), x)


def the_block_is_causal(library):
    block, x = library.ModernBlock(CONFIG, zero_start=False), torch.randn(2, 16, 16)
    changed = x.clone()
    changed[:, 9] += 1
    differs = (block(changed) - block(x)).abs().amax(dim=-1) > 1e-6
    assert not differs[:, :9].any() and differs[:, 9:].all()


def the_order_of_the_past_matters(library):
    """With rotary positions; without them the last token sees its past as a set."""
    x = torch.randn(1, 16, 16)
    swapped = x[:, [1, 0, *range(2, 16)]]
    for rotary in (True, False):
        attention = library.ModernBlock(CONFIG, rotary=rotary, zero_start=False).sa
        assert ((attention(x) - attention(swapped))[0, -1].abs().max() > 1e-5) == rotary


def relu_is_squared(library):
    close(library.SquaredReLU()(torch.tensor([-2.0, 0.5, 3.0])), torch.tensor([0, 0.25, 9.0]), rtol=0, atol=0)


# ---------------------------------------------------------------- Muon


def singular_values_come_near_1(library):
    for m, n in ((8, 8), (32, 8), (8, 32)):
        U, V_ = torch.linalg.qr(torch.randn(m, m))[0][:, :8], torch.linalg.qr(torch.randn(n, n))[0][:, :8]
        matrix = U @ torch.linspace(0.1, 1, 8).diag() @ V_.T  # (m, n), of known singular values
        values = torch.linalg.svdvals(library.orthogonalised(1000 * matrix))
        assert values.min() > 0.6 and values.max() < 1.3


def directions_stay(library):
    """U S V^T becomes U S' V^T: the same singular vectors."""
    U, V_ = (torch.linalg.qr(torch.randn(6, 6))[0] for _ in range(2))
    S = torch.tensor([1.0, 0.8, 0.6, 0.5, 0.4, 0.3])
    inner = U.T @ library.orthogonalised(U @ S.diag() @ V_.T) @ V_
    close(inner, inner.diag().diag(), rtol=0, atol=1e-3)


def steps_are_those_of_torch(library):
    """torch's computes in bfloat16, hence the tolerance: a fiftieth of the way."""
    generator = torch.Generator().manual_seed(3)
    for shape in ((24, 12), (12, 24)):
        ours, theirs = (torch.nn.Parameter(torch.zeros(shape)) for _ in range(2))
        optimizers = library.Muon([ours], lr=0.1), torch.optim.Muon([theirs], lr=0.1, weight_decay=0.0)
        for _ in range(4):
            ours.grad = torch.randn(shape, generator=generator)
            theirs.grad = ours.grad.clone()
            for optimizer in optimizers:
                optimizer.step()
        assert (ours - theirs).norm() < 0.02 * theirs.norm()


PROPERTIES = {
    modern_block: [
        unit_vectors_have_mean_square_1,
        turning_is_relative,
        turning_keeps_lengths_and_tells_places_apart,
        speeds_fall_from_1,
        qk_norm_makes_the_size_of_weights_irrelevant,
        the_block_is_nothing_at_first,
        the_block_is_causal,
        the_order_of_the_past_matters,
        relu_is_squared,
    ],
    muon: [
        singular_values_come_near_1,
        directions_stay,
        steps_are_those_of_torch,
    ],
}


test_properties = property_test(PROPERTIES)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 40), st.integers(0, 10**6))
def test_rotary_products_depend_on_the_distance_alone(i, j, shift, seed):
    q, k = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(seed))
    at = modern_block.rotary_angles(64, 16)
    here, there = (
        (modern_block.rotate_pairs(q, at[a : a + 1]) * modern_block.rotate_pairs(k, at[b : b + 1])).sum()
        for a, b in ((i, j), (i + shift, j + shift))
    )
    close(here, there, rtol=0, atol=1e-3)


def test_muon_is_for_matrices():
    with pytest.raises(ValueError, match=r"shape \(3,\); expected a matrix"):
        muon.Muon([torch.nn.Parameter(torch.zeros(3))])


# ---------------------------------------------------------------- planted faults are caught

UNIT, RELATIVE, LENGTHS, SPEEDS, QK, NOTHING, CAUSAL_BLOCK, ORDER, SQUARE = PROPERTIES[modern_block]
NEAR_1, DIRECTIONS, TORCHS = PROPERTIES[muon]

FAULTS = {
    modern_block: [
        ("mean square of C", "F.rms_norm(x, (x.shape[-1],))", "F.normalize(x, dim=-1)", {UNIT}),
        ("all pairs at one speed", "torch.arange(0, hs, 2) / hs", "torch.zeros(hs // 2)", {SPEEDS}),
        ("turned and stretched", "a * sin + b * cos", "a * sin + b", {LENGTHS, RELATIVE}),
        ("no turn at all", "a * cos - b * sin, a * sin + b * cos", "a * cos + b * sin, a * sin + b * cos",
         {LENGTHS, RELATIVE}),
        ("positions counted from 1", "torch.arange(T)[:, None]", "torch.arange(1, T + 1)[:, None]",
         {LENGTHS, SPEEDS}),
        ("only queries turned", "for a in (q, k))", "if a is q else a for a in (q, k))", {ORDER}),
        ("queries not normed", "q, k = rms_norm(q), rms_norm(k)", "k = rms_norm(k)", {QK}),
        ("the future seen", "is_causal=True", "is_causal=False", {CAUSAL_BLOCK}),
        ("ReLU alone", "F.relu(x).square()", "F.relu(x)", {SQUARE}),
        ("square alone", "F.relu(x).square()", "x.square()", {SQUARE}),
        ("attention not zero at first", "            nn.init.zeros_(self.sa.proj.weight)\n", "", {NOTHING}),
        ("feed-forward not zero at first", "            nn.init.zeros_(self.ffwd[2].weight)\n", "",
         {NOTHING}),
    ],
    muon: [
        ("not normed", "matrix / (matrix.norm() + 1e-7)", "matrix", {NEAR_1, TORCHS}),
        ("fifth power forgotten", " + 2.0315 * A @ A", "", {DIRECTIONS, NEAR_1, TORCHS}),
        ("tall stays turned", "return X.T if tall else X", "return X", {TORCHS}),
        ("element by element", "A = X @ X.T", "A = X * X", {DIRECTIONS, NEAR_1, TORCHS}),
        ("no momentum", "p.grad.lerp(velocity, group[\"momentum\"])", "p.grad", {TORCHS}),
        ("not Nesterov's", "p.grad.lerp(velocity, group[\"momentum\"])", "velocity", {TORCHS}),
        ("uphill", "alpha=-group", "alpha=group", {TORCHS}),
        ("tall as wide", " * max(1, p.shape[0] / p.shape[1]) ** 0.5", "", {TORCHS}),
    ],
}  # fmt: skip

test_a_planted_fault_is_caught, test_every_property_catches_a_fault = fault_tests(
    {library: (properties, FAULTS[library]) for library, properties in PROPERTIES.items()}
)
