"""The three averages of chapter 04: what must hold for each, over all sizes, and faults that would break it.

Each property is a function of an implementation and an input. The library's three versions pass them all; a
planted fault, a version's own source with one place changed, fails exactly those that the table names.
"""

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lecture_lib import averaging
from lecture_lib.averaging import average_loops, average_matmul, average_softmax, batch_time_channels

VERSIONS = [average_loops, average_matmul, average_softmax]
every_version = pytest.mark.parametrize("average", VERSIONS, ids=lambda average: average.__name__)


def random_x(B, T, C, seed=1337, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(B, T, C, generator=generator, dtype=dtype)


def close(actual, expected, atol=1e-12):
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def weights_of(average, x):
    """The (T, T) weights of `average`, measured: what it makes of the identity matrix, with C = T."""
    return average(torch.eye(x.shape[1], dtype=x.dtype)[None])[0]


# ---------------------------------------------------------------- the properties, for x of float64


def is_the_mean(average, x):
    """Every output against a mean that Python itself computes, number by number."""
    out = average(x)
    assert out.shape == x.shape
    for b, sequence in enumerate(x.tolist()):
        for t in range(len(sequence)):
            means = [sum(channel) / (t + 1) for channel in zip(*sequence[: t + 1], strict=True)]
            close(out[b, t], torch.tensor(means, dtype=x.dtype))


def is_causal(average, x):
    """Outputs up to t stay the same, bit for bit, whatever comes after t."""
    before = average(x)
    for t in range(x.shape[1]):
        changed = x.clone()
        changed[:, t + 1 :] = 100 - 3 * changed[:, t + 1 :]
        assert torch.equal(average(changed)[:, : t + 1], before[:, : t + 1]), f"changed after {t}"


def hears_itself_and_its_past(average, x):
    """Every weight on and below the diagonal is positive."""
    weights = weights_of(average, x)
    assert (weights[torch.ones_like(weights).tril() == 1] > 0).all()


def weights_sum_to_one(average, x):
    weights = weights_of(average, x)
    close(weights.sum(dim=1), torch.ones(x.shape[1], dtype=x.dtype))
    assert (weights >= 0).all()


def never_talks_across_the_batch(average, x):
    """The gradient of one batch row's outputs is exactly 0 in every other row, and not 0 in its own."""
    for b in range(x.shape[0]):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(average(x)[b].sum(), x)
        assert (gradient[b] != 0).all()
        gradient[b] = 0
        assert (gradient == 0).all()


def is_linear(average, x):
    other = x.flip(0, 1, 2)
    close(average(2 * x - 3 * other), 2 * average(x) - 3 * average(other))


def has_right_gradients(average, x):
    assert torch.autograd.gradcheck(average, x[:2, :5, :2].clone().requires_grad_())


def keeps_dtype_and_device(average, x):
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        assert average(x.to(dtype)).dtype == dtype
    with torch.device("meta"):  # what takes the default device, and not that of x, has no numbers
        elsewhere = average(x)
    assert elsewhere.device == x.device
    assert torch.equal(elsewhere, average(x))


PROPERTIES = [
    is_the_mean,
    is_causal,
    hears_itself_and_its_past,
    weights_sum_to_one,
    never_talks_across_the_batch,
    is_linear,
    has_right_gradients,
    keeps_dtype_and_device,
]


# ---------------------------------------------------------------- what is right passes


@every_version
@settings(deadline=None, max_examples=25)
@given(B=st.integers(1, 4), T=st.integers(1, 10), C=st.integers(1, 4), seed=st.integers(0, 2**32 - 1))
def test_properties(average, B, T, C, seed):
    x = random_x(B, T, C, seed)
    for holds in PROPERTIES:
        holds(average, x)


@settings(deadline=None, max_examples=50)
@given(B=st.integers(1, 5), T=st.integers(1, 40), C=st.integers(1, 8), seed=st.integers(0, 2**32 - 1))
def test_versions_are_equal(B, T, C, seed):
    x = random_x(B, T, C, seed)
    for average in (average_matmul, average_softmax):
        close(average(x), average_loops(x), atol=1e-14)
        close(average(x.float()), average_loops(x.float()), atol=1e-6)


def test_numbers_worked_by_hand():
    x = torch.tensor([[[2.0, 7.0], [6.0, 4.0], [6.0, 5.0]]])
    for average in VERSIONS:
        close(average(x), torch.tensor([[[2, 7], [4, 5.5], [14 / 3, 16 / 3]]]), atol=1e-6)


@every_version
@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 3), (2, 3, 0)])
def test_a_size_of_zero_gives_an_empty_result(average, shape):
    assert average(torch.zeros(shape)).shape == shape


@every_version
def test_x_is_left_alone(average):
    x = random_x(2, 5, 3)
    before = x.clone()
    average(x)
    assert torch.equal(x, before)


@every_version
def test_views_are_averaged_as_they_look(average):
    x = random_x(5, 3, 2).transpose(0, 1)  # not contiguous
    assert not x.is_contiguous()
    is_the_mean(average, x)


# ---------------------------------------------------------------- what is wrong is refused


@pytest.mark.parametrize("refuses", [*VERSIONS, batch_time_channels], ids=lambda function: function.__name__)
def test_bad_input_is_refused_with_what_was_expected(refuses):
    for shape in [(), (8,), (8, 2), (4, 8, 2, 1)]:
        with pytest.raises(ValueError) as error:
            refuses(torch.zeros(shape))
        assert str(error.value) == f"x has shape {shape}; expected three dimensions, (B, T, C)"
    for dtype in (torch.int64, torch.uint8, torch.bool, torch.complex64):
        with pytest.raises(ValueError, match=f"x has dtype {dtype}; expected a floating dtype"):
            refuses(torch.zeros((4, 8, 2), dtype=dtype))


def test_sizes_are_returned_in_order():
    assert batch_time_channels(torch.zeros(4, 8, 2)) == (4, 8, 2)


# ---------------------------------------------------------------- planted faults are caught

MEAN, CAUSAL, PAST, SUM, BATCH, LINEAR, GRADIENT, KEPT = PROPERTIES
LOOPS, MATMUL, SOFTMAX = VERSIONS
UPPER = ".tril()", ".triu()"
NO_SELF = ".tril()", ".tril(-1)"  # position 0 is left with nothing to average: nan, which fails everything
ALL = {*PROPERTIES}
MIXED = "wei @ x", "wei @ x.mean(dim=0, keepdim=True).expand_as(x)"

# the fault, the version, its code, what it becomes, and all properties that must notice
FAULTS = [
    ("no mask, the mean over all", LOOPS, ": t + 1].mean", ":].mean", {MEAN, CAUSAL}),
    ("no mask", MATMUL, ".tril()", "", {MEAN, CAUSAL}),
    ("no mask", SOFTMAX, '.masked_fill(tril == 0, float("-inf"))', "", {MEAN, CAUSAL}),
    ("0 for -inf", SOFTMAX, 'float("-inf")', "0.0", {MEAN, CAUSAL}),
    ("mask transposed", LOOPS, ": t + 1].mean", "t:].mean", {MEAN, CAUSAL, PAST}),
    ("mask transposed", MATMUL, *UPPER, {MEAN, CAUSAL, PAST}),
    ("mask transposed", SOFTMAX, *UPPER, {MEAN, CAUSAL, PAST}),
    ("wrong axis", MATMUL, "dim=1", "dim=0", {MEAN, SUM}),
    ("wrong axis", SOFTMAX, "dim=-1", "dim=0", {MEAN, SUM}),
    ("sums not kept a column", MATMUL, ", keepdim=True", "", {MEAN, SUM}),
    ("past without itself", LOOPS, ": t + 1].mean", ": max(t, 1)].mean", {MEAN, PAST, BATCH}),
    ("past without itself", MATMUL, *NO_SELF, ALL),
    ("past without itself", SOFTMAX, *NO_SELF, ALL),
    ("divided by T", LOOPS, ".mean(dim=0)", ".sum(dim=0) / T", {MEAN, SUM}),
    ("divided by T", MATMUL, "wei.sum(dim=1, keepdim=True)", "T", {MEAN, SUM}),
    ("talk in the batch", LOOPS, "x[b, : t + 1].mean(dim=0)", "x[:, : t + 1].mean((0, 1))", {MEAN, BATCH}),
    ("talk in the batch", MATMUL, *MIXED, {MEAN, BATCH}),
    ("talk in the batch", SOFTMAX, *MIXED, {MEAN, BATCH}),
    ("not linear", MATMUL, "wei @ x", "wei @ x.abs()", {MEAN, LINEAR}),
    ("gradient doubled", SOFTMAX, "wei @ x", "wei @ (2 * x - x.detach())", {GRADIENT}),
    ("float64 whatever x is", SOFTMAX, "return wei @ x", "return (wei @ x).double()", {KEPT}),
    ("weights on the default device", MATMUL, "x.new_ones(T, T)", "torch.ones(T, T, dtype=x.dtype)", {KEPT}),
]


def planted(average, old, new):
    """`average` with one place of its source changed."""
    source = inspect.getsource(average)
    assert source.count(old) == 1, f"{average.__name__} has {old!r} {source.count(old)} times, expected once"
    names = dict(vars(averaging))
    exec(source.replace(old, new), names)
    return names[average.__name__]


def failed(average, x):
    """The properties that `average` fails on `x`, by breaking an assertion or by torch's refusal."""
    failures = set()
    for holds in PROPERTIES:
        try:
            holds(average, x)
        except (AssertionError, RuntimeError):
            failures.add(holds)
    return failures


@pytest.mark.parametrize(
    ("average", "old", "new", "noticed_by"),
    [pytest.param(*fault[1:], id=f"{fault[1].__name__}-{fault[0]}") for fault in FAULTS],
)
def test_a_planted_fault_is_caught(average, old, new, noticed_by):
    x = random_x(3, 6, 2)
    assert failed(planted(average, old, old), x) == set()
    names = sorted(holds.__name__ for holds in failed(planted(average, old, new), x))
    assert names == sorted(holds.__name__ for holds in noticed_by)


def test_every_property_catches_a_fault():
    narrow = [noticed_by for *_, noticed_by in FAULTS if noticed_by != ALL]
    assert set().union(*narrow) == ALL
