"""The modern block and Muon, chapter 16b."""

from functools import partial

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import Suite, assert_causal, close, draw, refusals, suite_tests
from torch import nn

from lecture_lib import modern_block, muon
from lecture_lib.gpt import GPTConfig

CONFIG = GPTConfig(vocab_size=5, block_size=16, n_embd=16, n_head=2, n_layer=2)
draw = partial(draw, dtype=torch.float32)
block, optimizer = Suite(modern_block), Suite(muon)

# ---------------------------------------------------------------- the modern block


@block.holds
def normed_vectors_have_mean_square_1(library):
    x = 7 * draw(3, 4, 16) + 2
    close(library.rms_norm(x).pow(2).mean(dim=-1), torch.ones(3, 4), atol=1e-4)
    close(library.rms_norm(3 * x), library.rms_norm(x), atol=1e-5)


@block.holds
def turning_is_relative(library):
    angles = library.rotary_angles(64, 8)
    q, k = draw(2, 1, 8)
    products = [
        (library.rotate_pairs(q, angles[i : i + 1]) * library.rotate_pairs(k, angles[i - 3 : i - 2])).sum()
        for i in (3, 20, 63)
    ]
    close(torch.stack(products), products[0].expand(3), atol=1e-4)


@block.holds
def turning_keeps_lengths_and_tells_places_apart(library):
    x = draw(1, 8).expand(64, 8)
    turned = library.rotate_pairs(x, library.rotary_angles(64, 8))
    close(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-4)
    assert torch.equal(turned[0], x[0])
    assert (turned[1:] - turned[:-1]).norm(dim=-1).min() > 0.1


@block.holds
def speeds_fall_from_1(library):
    angles = library.rotary_angles(3, 8)
    close(angles[1], torch.tensor([1, 1e-1, 1e-2, 1e-3]), rtol=1e-5, atol=0)
    close(angles[2], 2 * angles[1], rtol=1e-6, atol=0)


@block.holds
def qk_norm_makes_the_size_of_weights_irrelevant(library):
    attention, x = library.RotaryAttention(CONFIG), draw(2, 16, 16)
    before = attention(x)
    with torch.no_grad():
        attention.qkv.weight[: 2 * 16] *= 50  # queries and keys
    close(attention(x), before, atol=1e-4)


@block.holds
def the_block_is_nothing_at_first(library):
    x = draw(2, 16, 16)
    assert torch.equal(library.ModernBlock(CONFIG)(x), x)


@block.holds
def the_block_adds_its_parts_one_after_the_other(library):
    parts, x = library.ModernBlock(CONFIG, zero_start=False), draw(2, 16, 16)
    attended = x + parts.sa(library.rms_norm(x))
    close(parts(x), attended + parts.ffwd(library.rms_norm(attended)), atol=1e-5)


@block.holds
def the_block_has_no_biases(library):
    assert not [name for name, _ in library.ModernBlock(CONFIG).named_parameters() if "bias" in name]


@block.holds
def the_block_is_causal(library):
    assert_causal(library.ModernBlock(CONFIG, zero_start=False), draw(2, 16, 16), atol=1e-6)


@block.holds
def the_order_of_the_past_matters(library):
    """With rotary positions; without them the last token sees its past as a set."""
    x = draw(1, 16, 16)
    swapped = x[:, [1, 0, *range(2, 16)]]
    for rotary in (True, False):
        attention = library.ModernBlock(CONFIG, rotary=rotary, zero_start=False).sa
        assert ((attention(x) - attention(swapped))[0, -1].abs().max() > 1e-5) == rotary


@block.holds
def relu_is_squared(library):
    assert library.SquaredReLU()(torch.tensor([-2.0, 0.5, 3.0])).tolist() == [0, 0.25, 9]


@block.holds
def each_choice_changes_the_block(library):
    """Under the same seed, a block that lacks one thing gives other outputs."""
    x, outs = 3 * draw(1, 16, 16), []
    for left_out in ({}, {"rotary": False}, {"qk_norm": False}, {"squared_relu": False}):
        torch.manual_seed(0)
        outs.append(library.ModernBlock(CONFIG, **left_out, zero_start=False)(x))
    assert all((out - outs[0]).abs().max() > 1e-3 for out in outs[1:])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 40), st.integers(0, 10**6))
def test_rotary_products_depend_on_the_distance_alone(i, j, shift, seed):
    q, k = draw(2, 1, 16, seed=seed)
    at = modern_block.rotary_angles(64, 16)
    here, there = (
        (modern_block.rotate_pairs(q, at[a : a + 1]) * modern_block.rotate_pairs(k, at[b : b + 1])).sum()
        for a, b in ((i, j), (i + shift, j + shift))
    )
    close(here, there, atol=1e-3)


block.faults = [
    ("mean square of C", "F.rms_norm(x, (x.shape[-1],))", "F.normalize(x, dim=-1)",
     normed_vectors_have_mean_square_1),
    ("all pairs at one speed", "torch.arange(0, hs, 2) / hs", "torch.zeros(hs // 2)", speeds_fall_from_1),
    ("turned and stretched", "a * sin + b * cos", "a * sin + b",
     turning_keeps_lengths_and_tells_places_apart),
    ("no turn at all", "a * cos - b * sin", "a * cos + b * sin", turning_is_relative),
    ("positions counted from 1", "torch.arange(T)", "torch.arange(1, T + 1)", speeds_fall_from_1),
    ("only queries turned", "for a in (q, k))", "if a is q else a for a in (q, k))",
     the_order_of_the_past_matters),
    ("queries not normed", "q, k = rms_norm(q), rms_norm(k)", "k = rms_norm(k)",
     qk_norm_makes_the_size_of_weights_irrelevant),
    ("the future seen", "is_causal=True", "is_causal=False", the_block_is_causal),
    ("ReLU alone", ".square()", "", relu_is_squared),
    ("square alone", "F.relu(x)", "x", relu_is_squared),
    ("attention not zero at first", "nn.init.zeros_(self.sa.proj.weight)", "pass",
     the_block_is_nothing_at_first),
    ("feed-forward not zero at first", "nn.init.zeros_(self.ffwd[2].weight)", "pass",
     the_block_is_nothing_at_first),
    ("attention subtracted", "x = x + self.dropout", "x = x - self.dropout",
     the_block_adds_its_parts_one_after_the_other),
    ("a bias in the feed-forward", "nn.Linear(C, 4 * C, bias=False)", "nn.Linear(C, 4 * C)",
     the_block_has_no_biases),
    ("always rotary", "if rotary else", "if True else", each_choice_changes_the_block),
    ("never normed", "if self.qk_norm:", "if False:", each_choice_changes_the_block),
    ("always squared", "if squared_relu else", "if True else", each_choice_changes_the_block),
]  # fmt: skip

# ---------------------------------------------------------------- Muon


@optimizer.holds
def singular_values_come_near_1(library):
    for m, n in ((8, 8), (32, 8), (8, 32)):
        U, V = (torch.linalg.qr(draw(size, size, seed=size))[0][:, :8] for size in (m, n))
        matrix = U @ torch.linspace(0.1, 1, 8).diag() @ V.T  # (m, n), of known singular values
        found = library.orthogonalised(1000 * matrix)
        assert found.shape == (m, n) and found.isfinite().all()
        values = torch.linalg.svdvals(found)
        assert values.min() > 0.6 and values.max() < 1.3


@optimizer.holds
def directions_stay(library):
    """U S V^T becomes U S' V^T: the same singular vectors."""
    U, V = (torch.linalg.qr(draw(6, 6, seed=seed))[0] for seed in (1, 2))
    S = torch.tensor([1.0, 0.8, 0.6, 0.5, 0.4, 0.3])
    inner = U.T @ library.orthogonalised(U @ S.diag() @ V.T) @ V
    close(inner, inner.diag().diag(), atol=1e-3)


@optimizer.holds
def steps_are_those_of_torch(library):
    """torch's computes in bfloat16, hence the tolerance: a fiftieth of the way."""
    for shape in ((24, 12), (12, 24)):
        ours, theirs = (nn.Parameter(torch.zeros(shape)) for _ in range(2))
        optimizers = library.Muon([ours], lr=0.1), torch.optim.Muon([theirs], lr=0.1, weight_decay=0.0)
        for seed in range(4):
            ours.grad, theirs.grad = draw(*shape, seed=seed), draw(*shape, seed=seed)
            for each in optimizers:
                each.step()
        assert (ours - theirs).norm() < 0.02 * theirs.norm()


test_what_is_refused = refusals(
    ("shape (3,); expected a matrix", lambda: muon.Muon([nn.Parameter(torch.zeros(3))])),
)

optimizer.faults = [
    ("not normed", "matrix / (matrix.norm() + 1e-7)", "matrix", singular_values_come_near_1),
    ("fifth power forgotten", " + 2.0315 * A @ A", "", singular_values_come_near_1),
    ("tall stays turned", "X.T if tall else X", "X", singular_values_come_near_1),
    ("element by element", "A = X @ X.T", "A = X * X", directions_stay),
    ("no momentum", 'p.grad.lerp(velocity, group["momentum"])', "p.grad", steps_are_those_of_torch),
    ("not Nesterov's", 'p.grad.lerp(velocity, group["momentum"])', "velocity", steps_are_those_of_torch),
    ("uphill", "alpha=-group", "alpha=group", steps_are_those_of_torch),
    ("tall as wide", " * max(1, p.shape[0] / p.shape[1]) ** 0.5", "", steps_are_those_of_torch),
]  # fmt: skip

test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(block, optimizer)
