"""Checks of the exercises of 10b_long_runs."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from .asking import Wrong, ask, expect, number, several
from .checking import exercise

SLIPS = {  # what is often said of an optimizer's memory, and why it isn't so
    "SGD": ("Plain SGD remembers nothing from one step to the next.", 2),
    "SGD with momentum": ("Momentum is a number for each weight: a running sum of its gradients.", 1),
    "AdamW": ("AdamW keeps two averages for each weight, of the gradient and of its square.", 2),
}
ADVICE = "Write to another file, and move that one to the path when it's complete."


@exercise("10b.1", dict, "a dict with the numbers for each parameter, by optimizer")
def numbers_kept(answer: dict) -> str:
    right = {"SGD": 1, "SGD with momentum": 2, "AdamW": 3}
    if set(answer) != set(right):
        raise Wrong(f"Expected the keys {', '.join(right)}, got {', '.join(map(str, answer))}.")
    given = [number(answer[name], name) for name in right]
    if given == [0, 1, 2]:
        raise Wrong("That's what the optimizer keeps. The weight itself has to be saved, too.")
    if given == [2, 3, 4]:
        raise Wrong("Gradients needn't be saved: each step computes its own from the batch.")
    for name, value in zip(right, given, strict=True):
        sentence, usual = SLIPS[name]
        expect(value, right[name], f"Numbers for each parameter with {name}", {sentence: usual})
    return (
        "Only with plain SGD is the optimizer's part of the state empty. With AdamW the state of a model of 10 "
        "million parameters has 30 million numbers, 120 megabytes in float32."
    )


@exercise("10b.2", Callable, "a function that returns what `draw()` would return next")
def look_ahead(answer: Callable) -> str:
    draws = {"torch.rand(3)": lambda: torch.rand(3), "torch.randperm(9)": lambda: torch.randperm(9)}
    for name, draw in draws.items():
        seen_from = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            seen_from.append(ask(answer, draw))
        if torch.equal(*seen_from):
            raise Wrong(
                f"Your look at {name} gives the same numbers wherever the generator stands. Don't seed it: take its "
                "state as it is."
            )
        state = torch.get_rng_state()
        first, second = draw(), draw()
        torch.set_rng_state(state)
        seen = ask(answer, draw)
        left_at = torch.get_rng_state()
        expect(
            seen, first, f"A look at {name}", {"These numbers come after the next ones: draw once.": second}
        )
        if not torch.equal(left_at, state):
            raise Wrong(
                f"After your look, {name} gives other numbers than it would have: put the generator back into the "
                "state that it had before."
            )
    try:
        state = torch.get_rng_state()
        ask(answer, draw_and_stop)
    except InterruptedError:
        if not torch.equal(torch.get_rng_state(), state):
            raise Wrong(
                "If draw() stops with an error, the generator stays where it was left; restore it in a `finally`."
            ) from None
    else:
        raise Wrong("draw() stopped with an error, and your function hides it. Let it pass.")
    return (
        "A run that looks at a sample in this way, between two steps, draws the same batches as one that doesn't. "
        "torch has it ready: `with torch.random.fork_rng():`."
    )


def draw_and_stop() -> None:
    torch.rand(1)
    raise InterruptedError("in the middle of a draw")


@exercise("10b.3", Callable, "a function of a path and pieces of bytes that writes them into the file")
def whole_or_not_at_all(answer: Callable) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "state.pt"
        for content in (b"a first state", b"a second one", b"short"):
            old = file.stat().st_ino if file.exists() else None
            ask(answer, file, (content[:4], content[4:]))
            if not file.exists():
                raise Wrong("There is no file at the path after a write that went well.")
            found = file.read_bytes()
            if found != content:
                raise Wrong(f"Expected the file to hold {content!r}, found {found!r}.")
            if file.stat().st_ino == old:
                raise Wrong(f"The old file is overwritten, or gone, before the new one is complete. {ADVICE}")
            check_alone(file)
        try:
            answer(file, interrupted())
        except KeyboardInterrupt:
            pass
        else:
            raise Wrong("The writing was interrupted, and your function hides it. Let the exception pass.")
        found = file.read_bytes() if file.exists() else None
        if found != content:
            raise Wrong(
                f"Interrupted after the first piece, the file holds {found!r}; expected what was in it before, "
                f"{content!r}. {ADVICE}"
            )
        check_alone(file)
    return (
        "Moving a file within a folder happens at once, so that a reader finds the old state or the new one, never "
        "a half. The course's `replacing` does it in this way."
    )


def interrupted() -> Iterator[bytes]:
    """Pieces of which the second never comes."""
    yield b"half a"
    raise KeyboardInterrupt


def check_alone(file: Path) -> None:
    """Wrong if something else than `file` is left in its folder."""
    others = [other.name for other in file.parent.iterdir() if other != file]
    if others:
        raise Wrong(f"{', '.join(others)} is left beside {file.name}; remove it, after an interruption, too.")


@exercise("10b.4", Callable, "a function of data, step and three sizes that gives xb, yb, (B, T) each")
def batch_of_a_step(answer: Callable) -> str:
    B, T, data = 3, 4, torch.arange(100, 160)
    draw = lambda step, seed=7, data=data, B=B: batch(ask(answer, data, step, B, T, seed), B, T)  # noqa: E731
    before = torch.get_rng_state()
    xb, yb = draw(step=0)
    if not torch.equal(torch.get_rng_state(), before):
        raise Wrong(
            "torch's own generator has moved on. Make a new one, `torch.Generator()`, seed it, and pass it to "
            "`torch.randint`."
        )
    expect(
        yb,
        xb + 1,  # of this data, each number is followed by the next
        "The targets yb",
        {
            "The targets aren't shifted: yb has to begin one place after xb.": xb,
            "The targets are before the inputs: yb has to begin one place after xb.": xb - 1,
            "The targets are shifted by two places; they begin one place after xb.": xb + 2,
        },
    )
    if not torch.equal(xb, xb[:, :1] + torch.arange(T)):
        raise Wrong("A row of xb isn't a piece of the text: expected neighbouring tokens, in their order.")
    torch.rand(5)  # whatever else is drawn in between
    if not torch.equal(draw(step=0)[0], xb):
        raise Wrong("Step 0 has another batch when it's asked for again; seed the generator in each call.")
    others = {"step": draw(step=1)[0], "seed": draw(step=0, seed=8)[0]}
    for name, other in others.items():
        if torch.equal(other, xb):
            raise Wrong(f"Another {name} gives the same batch; the generator's seed has to depend on it.")
    starts = draw(step=2, B=5000)[0][:, 0] - 100
    if len(starts.diff().unique()) < len(data) // 2:
        raise Wrong(
            "The pieces follow each other in a regular order; draw their places, with `torch.randint`."
        )
    if starts.min() > 0 or starts.max() < len(data) - T - 1:
        raise Wrong(
            f"Pieces begin at {starts.min()} to {starts.max()}, of {len(data)} tokens; expected 0 to "
            f"{len(data) - T - 1}, the last place where xb and yb still fit."
        )
    return (
        "The generator's state needn't be saved: the step's number is enough, and several processes can draw their "
        "batches without asking each other. (With the sum seed + step, seed 8 sees seed 7's batches one step early.)"
    )


def batch(value: object, B: int, T: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the learner's function returned as xb and yb; Wrong if it isn't a pair of (B, T)."""
    several(value, 2, f"Expected two tensors, xb and yb, got {type(value).__name__}.")
    for name, part in zip(("xb", "yb"), value, strict=True):
        shape = tuple(getattr(part, "shape", ()))
        if shape != (B, T):
            raise Wrong(f"{name}: expected shape (B, T), here {(B, T)}, got {shape}.")
    return tuple(value)
