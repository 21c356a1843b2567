"""Pictures that more than one chapter draws, and the one style for all of them."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from .ladder import earlier_curves, lecture_numbers

TRAIN, VAL, REFERENCE = "#4878d0", "#d1603d", "#555555"

STYLE = {
    "figure.figsize": (7.0, 3.6),
    "figure.dpi": 90,
    "figure.constrained_layout.use": True,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.7,
    "font.size": 10,
    "legend.frameon": False,
    "image.cmap": "viridis",
}


def use_style() -> None:
    """Draw every later figure of this kernel in the course's style."""
    plt.rcParams.update(STYLE)


def visible(character: str) -> str:
    """The character as it is drawn: a space and a newline get a sign of their own."""
    return {" ": "␣", "\n": "↵"}.get(character, character)


def loss_curves(history, references: dict[str, float], title: str) -> Axes:
    """Train and validation loss (nats per character) over optimizer steps, on one axes.

    `history` has `steps`, `train` and `val`, equally long; each of `references` becomes a labelled line.
    """
    _, axes = plt.subplots()
    axes.plot(history.steps, history.train, color=TRAIN, marker="o", markersize=3, label="train")
    axes.plot(history.steps, history.val, color=VAL, marker="o", markersize=3, label="val")
    for label, level in references.items():
        reference_line(axes, level, label)
    axes.set(title=title, xlabel="optimizer step", ylabel="loss (nats per character)")
    axes.legend(loc="upper right")
    return axes


def ladder_curves(history, stem: str, title: str) -> Axes:
    """The run of chapter `stem` over the earlier rungs' recorded ones, and the lecture's number."""
    lecture = lecture_numbers()[stem]["val"]
    axes = loss_curves(history, {}, title)
    reference_line(axes, lecture, "the lecture", side="left")  # below the steep start, where no curve runs
    curves = earlier_curves(stem)
    for i, (rung, curve) in enumerate(curves.items()):
        shade = str(0.8 - 0.4 * i / len(curves))
        axes.plot(curve["steps"], curve["val"], color=shade, linewidth=1.5, zorder=1, label=f"val, {rung}")
    axes.set_ylim(min(lecture, *history.train) - 0.08, 2.9)  # without the steep start, the same everywhere
    axes.figure.set_size_inches(9, 3.8)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)
    return axes


def reference_line(axes: Axes, level: float, label: str, side: str = "right") -> None:
    """A dashed line at a level, with its name written on it, on the right or on the left."""
    axes.axhline(level, color=REFERENCE, linestyle="--", linewidth=1)
    axes.annotate(
        f"{label}: {level:.2f}",
        xy=(0.99 if side == "right" else 0.01, level),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        ha=side,
        color=REFERENCE,
        fontsize=9,
    )
