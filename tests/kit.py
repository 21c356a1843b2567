"""What the tests share: properties and the faults that they must notice, draws, comparisons.

A property is a function of an implementation that asserts what must hold. It is registered where it is
written, holds for the library, and must fail, by assertion, for a copy with the fault that names it.
"""

import inspect
import tokenize
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, wraps
from io import StringIO
from itertools import accumulate, combinations
from types import FunctionType, ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox
from torch import nn

DOUBLE = torch.float64

# ---------------------------------------------------------------- properties and planted faults


@cache
def code_of(library: ModuleType | FunctionType) -> str:
    """The source without comments and with empty docstrings, so that no fault depends on their wording."""
    source = inspect.getsource(library)
    starts = [0, *accumulate(len(line) for line in source.splitlines(keepends=True))]
    code, end, statement_begins = "", 0, True
    for kind, _, first, last, _ in tokenize.generate_tokens(StringIO(source).readline):
        if kind == tokenize.COMMENT or (kind == tokenize.STRING and statement_begins):
            before = source[end : starts[first[0] - 1] + first[1]]
            code += before.rstrip(" ") if kind == tokenize.COMMENT else f'{before}""'
            end = starts[last[0] - 1] + last[1]
        if kind not in (tokenize.COMMENT, tokenize.NL):
            statement_begins = kind in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    return code + source[end:]


def planted(library: ModuleType | FunctionType, old: str, new: str) -> ModuleType | FunctionType:
    """A copy of a module, or of a function, with one place of its code changed."""
    code = code_of(library)
    assert code.count(old) == 1, f"{old!r} stands {code.count(old)} times in the code, expected once"
    changed = code.replace(old, new)
    if isinstance(library, ModuleType):
        copy = ModuleType("planted")
        exec(changed, vars(copy))
        return copy
    names = dict(library.__globals__)
    exec(changed, names)
    return names[library.__name__]


def raises(error: type[Exception], holds: Callable) -> Callable:
    """`holds` as the property to notice a fault that lets nothing run: this error is its failure."""

    @wraps(holds)
    def noticed(*args, **given):
        try:
            holds(*args, **given)
        except error as crash:
            raise AssertionError(f"{crash!r}") from crash

    return noticed


def name_of(subject: object) -> str:
    return getattr(subject, "__name__", str(subject)).rpartition(".")[-1]


class Suite:
    """The properties of one implementation, or of several, and the faults to plant in it.

    Properties take the implementation first. Their other parameters are found by name: in `given`, or
    among pytest's fixtures (`tmp_path`).
    A fault is what it's called, the place and its replacement, and the property, or a tuple of properties,
    that must notice. With several subjects the one to change stands before the place. Whatever stands between
    name and property goes to `plant`, after the subject if there is but one.
    """

    def __init__(self, *subjects: object, plant: Callable = planted, **given: object):
        self.subjects, self.plant, self.given = subjects, plant, given
        self.properties: list[Callable] = []
        self.faults: Sequence[tuple] = ()

    def holds(self, property: Callable) -> Callable:
        """Register a property."""
        self.properties.append(property)
        return property

    def ask(self, holds: Callable, subject: object, request: pytest.FixtureRequest) -> None:
        torch.manual_seed(0)
        _, *names = inspect.signature(holds).parameters
        given = {n: self.given[n] if n in self.given else request.getfixturevalue(n) for n in names}
        holds(subject, **given)

    def faulty(self, *fault: object) -> object:
        return self.plant(*self.subjects, *fault) if len(self.subjects) == 1 else self.plant(*fault)

    def noticing(self) -> list[tuple[str, tuple, Callable]]:
        """Each fault's name, the arguments of `plant`, and one property that must notice it."""
        return [
            (name, tuple(fault), holds)
            for name, *fault, noticed_by in self.faults
            for holds in (noticed_by if isinstance(noticed_by, tuple) else (noticed_by,))
        ]

    def at_any_size(self, examples: int = 10, **sizes: Sequence) -> Callable:
        """The test that the properties which ask for one of `sizes` hold for values drawn from them."""
        needs = {holds: [*inspect.signature(holds).parameters][1:] for holds in self.properties}
        rows = [
            pytest.param(subject, holds, id=f"{name_of(subject)}-{holds.__name__}")
            for subject in self.subjects
            for holds, names in needs.items()
            if sizes.keys() & set(names)
        ]

        @pytest.mark.parametrize(("subject", "holds"), rows)
        @settings(deadline=None, max_examples=examples)
        @given(drawn=st.fixed_dictionaries({name: st.sampled_from(values) for name, values in sizes.items()}))
        def test_at_any_size(subject, holds, drawn):
            holds(subject, **{name: (self.given | drawn)[name] for name in needs[holds]})

        return test_at_any_size


def suite_tests(*suites: Suite) -> tuple[Callable, Callable]:
    """A file's two tests: the library has its properties, and they notice the faults, each by assertion."""
    held = [
        pytest.param(suite, subject, holds, id=f"{name_of(subject)}-{holds.__name__}")
        for suite in suites
        for subject in suite.subjects
        for holds in suite.properties
    ]
    noticing = [
        pytest.param(suite, fault, holds, id=f"{name}-{holds.__name__}")
        for suite in suites
        for name, fault, holds in suite.noticing()
    ]

    @pytest.mark.parametrize(("suite", "subject", "holds"), held)
    def test_a_property_holds(suite, subject, holds, request):
        suite.ask(holds, subject, request)
        assert holds in {inspect.unwrap(named) for *_, named in suite.noticing()}, (
            f"no planted fault shows that {holds.__name__} can fail"
        )

    @pytest.mark.parametrize(("suite", "fault", "holds"), noticing)
    def test_a_planted_fault_is_caught(suite, fault, holds, request):
        faulty = suite.faulty(*fault)
        try:
            suite.ask(holds, faulty, request)
        except (AssertionError, pytest.fail.Exception):
            return
        pytest.fail(f"{holds.__name__} holds in spite of the fault")

    return test_a_property_holds, test_a_planted_fault_is_caught


def refusals(*rows: tuple) -> Callable:
    """The test of what is refused: each row a part of the message, what to call, and its arguments.

    The error is a ValueError; for another one, its class stands first in the row.
    """
    table = [row if isinstance(row[0], type) else (ValueError, *row) for row in rows]

    @pytest.mark.parametrize(
        ("error", "message", "call", "args"),
        [pytest.param(*row[:3], row[3:], id=row[1]) for row in table],
    )
    def test_what_is_refused(error, message, call, args):
        with pytest.raises(error) as refused:
            call(*args)
        assert message in str(refused.value), str(refused.value)

    return test_what_is_refused


# ---------------------------------------------------------------- draws and comparisons


def draw(*shape: int, seed: int = 1337, dtype: torch.dtype = DOUBLE) -> torch.Tensor:
    """Normal numbers, the same for the same seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def draw_ids(*shape: int, vocab_size: int = 11, seed: int = 7) -> torch.Tensor:
    return torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def seeded(make: Callable, *args, seed: int = 1337, **how):
    """What `make` gives under a seed of its own."""
    torch.manual_seed(seed)
    return make(*args, **how)


def close(actual: torch.Tensor, expected: torch.Tensor, atol: float = 1e-10, rtol: float = 0) -> None:
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)


def count(module: nn.Module) -> int:
    """Parameters, each counted once."""
    return sum(p.numel() for p in module.parameters())


def another(x: torch.Tensor) -> torch.Tensor:
    """Other numbers, or other ids of the same vocabulary, in every place."""
    return 3 - 2 * x if x.is_floating_point() else (x == 0).to(x.dtype)


def assert_causal(f: Callable, x: torch.Tensor, atol: float = 0) -> None:
    """Outputs up to t stay the same, bit for bit unless `atol` says otherwise, whatever comes after t."""
    before = f(x)
    for t in range(x.shape[1]):
        changed = x.clone()
        changed[:, t + 1 :] = another(x[:, t + 1 :])
        close(f(changed)[:, : t + 1], before[:, : t + 1], atol=atol)


def assert_rows_apart(f: Callable, x: torch.Tensor, atol: float = 0) -> None:
    """Each row's output stays the same, whatever the other rows of the batch are."""
    before = f(x)
    for b in range(x.shape[0]):
        changed = another(x)
        changed[b] = x[b]
        close(f(changed)[b], before[b], atol=atol)


def assert_all_learn(module: nn.Module, loss: torch.Tensor) -> None:
    """Every parameter gets a gradient from the loss that isn't 0 all over."""
    loss.backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def loss_by_heart(optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor], steps: int) -> float:
    """The loss of one batch, always the same, before the last of `steps` steps, in nats per token."""
    for _ in range(steps):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return value.item()


def constructed_and_kept(make: Callable[[], nn.Module]) -> tuple[Counter, Counter]:
    """How many modules of each type were constructed to make a model, and how many of them it keeps."""
    constructed, plain = Counter(), nn.Module.__init__

    def counted(module, *args, **how):
        constructed[type(module).__name__] += 1
        plain(module, *args, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Module, "__init__", counted)
        model = make()
    return constructed, Counter(type(module).__name__ for module in model.modules())


# ---------------------------------------------------------------- pictures


def written(axes: Axes) -> list[tuple[str, Bbox]]:
    """The texts of a picture, each with the rectangle that it fills."""
    return [(text.get_text(), text.get_window_extent()) for text in axes.texts if text.get_text()]


def assert_readable(axes: Axes) -> None:
    """No text lies on another or outside the picture."""
    texts = written(axes)
    for (one, here), (other, there) in combinations(texts, 2):
        assert not here.overlaps(there), (one, other)
    width, height = axes.figure.canvas.get_width_height()
    for text, box in texts:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text


# ---------------------------------------------------------------- devices


class Elsewhere(nn.Module):
    """A model on another device, which ends what is done with it once ids have arrived there."""

    block_size = 4

    class Arrived(Exception):
        pass

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, device="meta"))

    def forward(self, idx, targets=None):
        assert {ids.device.type for ids in (idx, targets) if ids is not None} == {"meta"}
        raise Elsewhere.Arrived

    def generate(self, idx, max_new_tokens):
        self(idx)
