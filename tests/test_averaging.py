"""The three averages of chapter 04."""

import pytest
import torch
from kit import Suite, assert_causal, close, draw, suite_tests

from lecture_lib.averaging import average_loops, average_matmul, average_softmax, batch_time_channels

VERSIONS = average_loops, average_matmul, average_softmax
averages = Suite(*VERSIONS, B=3, T=6, C=2)


def weights_of(average, T):
    """The (T, T) weights of `average`, measured: what it makes of the identity matrix, with C = T."""
    return average(torch.eye(T).double()[None])[0]


@averages.holds
def is_the_mean(average, B, T, C):
    """Every output against a mean that Python itself computes, number by number, of a view too."""
    x = draw(T, B, C).transpose(0, 1)  # (B, T, C), not contiguous
    before, out = x.clone(), average(x)
    for b, t, c in torch.cartesian_prod(*map(torch.arange, (B, T, C))).tolist():
        assert abs(out[b, t, c] - sum(x[b, : t + 1, c].tolist()) / (t + 1)) < 1e-12
    assert out.shape == x.shape and torch.equal(x, before)


@averages.holds
def is_causal(average, B, T, C):
    assert_causal(average, draw(B, T, C))


@averages.holds
def hears_itself_and_its_past(average, T):
    """Every weight on and below the diagonal is positive."""
    assert (weights_of(average, T)[torch.ones(T, T).tril() == 1] > 0).all()


@averages.holds
def weights_sum_to_one(average, T):
    weights = weights_of(average, T)
    close(weights.sum(dim=1), torch.ones_like(weights[0]))
    assert (weights >= 0).all()


@averages.holds
def never_talks_across_the_batch(average, B, T, C):
    """The gradient of one batch row's outputs is exactly 0 in every other row, and not 0 in its own."""
    for b in range(B):
        x = draw(B, T, C).requires_grad_()
        (gradient,) = torch.autograd.grad(average(x)[b].sum(), x)
        assert (gradient[b] != 0).all() and gradient[torch.arange(B) != b].count_nonzero() == 0


@averages.holds
def is_linear(average, B, T, C):
    x, other = draw(B, T, C), draw(B, T, C, seed=1)
    close(average(2 * x - 3 * other), 2 * average(x) - 3 * average(other))


@averages.holds
def has_right_gradients(average, B, T, C):
    x = draw(B, T, C).requires_grad_()
    assert torch.autograd.gradcheck(average, x, raise_exception=False)


@averages.holds
def keeps_dtype_and_device(average, B, T, C):
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        assert average(draw(B, T, C).to(dtype)).dtype == dtype
    x = draw(B, T, C)
    with torch.device("meta"):  # what takes the default device, and not that of x, has no numbers
        elsewhere = average(x)
    assert elsewhere.device == x.device
    assert torch.equal(elsewhere, average(x))


test_at_any_size = averages.at_any_size(B=range(1, 5), T=range(1, 11), C=range(1, 5))


def test_numbers_worked_by_hand():
    x = torch.tensor([[[2.0, 7.0], [6.0, 4.0], [6.0, 5.0]]])
    for average in VERSIONS:
        close(average(x), torch.tensor([[[2, 7], [4, 5.5], [14 / 3, 16 / 3]]]), atol=1e-6)


def test_sizes_are_returned_in_order_and_one_of_zero_gives_an_empty_result():
    assert batch_time_channels(torch.zeros(4, 8, 2)) == (4, 8, 2)
    for shape in [(0, 3, 2), (2, 0, 3), (2, 3, 0)]:
        assert {average(torch.zeros(shape)).shape for average in VERSIONS} == {shape}


@pytest.mark.parametrize("refuses", [*VERSIONS, batch_time_channels], ids=lambda function: function.__name__)
def test_bad_input_is_refused_with_what_was_expected(refuses):
    for shape in [(), (8,), (8, 2), (4, 8, 2, 1)]:
        with pytest.raises(ValueError) as error:
            refuses(torch.zeros(shape))
        assert str(error.value) == f"x has shape {shape}; expected three dimensions, (B, T, C)"
    for dtype in (torch.int64, torch.uint8, torch.bool, torch.complex64):
        with pytest.raises(ValueError, match=f"x has dtype {dtype}; expected a floating dtype"):
            refuses(torch.zeros((4, 8, 2), dtype=dtype))


UPPER, NO_SELF = (
    (".tril()", ".triu()"),
    (".tril()", ".tril(-1)"),
)  # leaves position 0 nothing to average
MIXED = "wei @ x", "wei @ x.mean(dim=0, keepdim=True).expand_as(x)"
averages.faults = [
    ("no mask, the mean over all", average_loops, ": t + 1]", ":]", is_causal),
    ("no mask", average_matmul, ".tril()", "", is_causal),
    ("no mask", average_softmax, '.masked_fill(tril == 0, float("-inf"))', "", is_causal),
    ("0 for -inf", average_softmax, 'float("-inf")', "0.0", is_causal),
    ("mask transposed", average_loops, ": t + 1]", "t:]", (is_causal, hears_itself_and_its_past)),
    ("mask transposed", average_matmul, *UPPER, (is_causal, hears_itself_and_its_past)),
    ("mask transposed", average_softmax, *UPPER, (is_causal, hears_itself_and_its_past)),
    ("wrong axis", average_matmul, "dim=1", "dim=0", weights_sum_to_one),
    ("wrong axis", average_softmax, "dim=-1", "dim=0", weights_sum_to_one),
    ("sums not kept a column", average_matmul, ", keepdim=True", "", weights_sum_to_one),
    ("past without itself", average_loops, ": t + 1]", ": max(t, 1)]", hears_itself_and_its_past),
    ("past without itself", average_matmul, *NO_SELF, hears_itself_and_its_past),
    ("past without itself", average_softmax, *NO_SELF, hears_itself_and_its_past),
    ("divided by T", average_loops, ".mean(dim=0)", ".sum(dim=0) / T", (is_the_mean, weights_sum_to_one)),
    ("divided by T", average_matmul, "wei.sum(dim=1, keepdim=True)", "T", weights_sum_to_one),
    ("talk in the batch", average_loops, "x[b, : t + 1].mean(dim=0)", "x[:, : t + 1].mean((0, 1))",
     never_talks_across_the_batch),
    ("talk in the batch", average_matmul, *MIXED, never_talks_across_the_batch),
    ("talk in the batch", average_softmax, *MIXED, never_talks_across_the_batch),
    ("not linear", average_matmul, "wei @ x", "wei @ x.abs()", is_linear),
    ("gradient doubled", average_softmax, "wei @ x", "wei @ (2 * x - x.detach())", has_right_gradients),
    ("float64 whatever x is", average_softmax, "wei @ x", "(wei @ x).double()", keeps_dtype_and_device),
    ("weights on the default device", average_matmul, "x.new_ones(T, T)", "torch.ones(T, T, dtype=x.dtype)",
     keeps_dtype_and_device),
]  # fmt: skip
test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(averages)
