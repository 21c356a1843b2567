"""The drawing of chapters 14 to 14c: who makes and who uses prompts, answers, verdicts and rewards."""

from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from lecture_lib.base.errors import CourseError

from .drawings import NEW, NEW_FILL, OLD, OLD_FILL

PARTS = ("14", "14b", "14c")  # the notebooks that build the boxes
WIDTH, HEIGHT, BOX_WIDTH, BOX_HEIGHT = 7.0, 5.15, 1.5, 0.5  # inches
REFERENCE = "#8e5bb5"  # arrows of the model that a penalty is measured from

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A maker or user of data: its text, the place of its middle, what builds it."""

    text: str
    at: Point
    built: tuple[tuple[str, int], ...]  # (notebook, section)

    @property
    def sections(self) -> str:
        return "; ".join(f"{part}, section {number}" for part, number in self.built)


BOXES = {
    "requests": Box("the requests", (1.75, 4.85), (("14", 3),)),
    "corpus": Box("Shakespeare", (4.45, 4.85), (("14", 3),)),
    "sft": Box("SFT model", (3.1, 3.85), (("14", 4),)),
    "reader": Box("noisy reader", (0.95, 2.9), (("14b", 1),)),
    "reward": Box("reward model", (4.4, 2.3), (("14b", 2),)),
    "check": Box("the check", (6.15, 2.3), (("14", 5),)),
    "dpo": Box("DPO's policy", (0.95, 1.25), (("14c", 2),)),
    "best": Box("best of n", (2.65, 1.25), (("14b", 3),)),
    "ppo": Box("PPO's policy", (4.4, 1.25), (("14b", 5),)),
    "grpo": Box("GRPO's policy", (6.15, 1.25), (("14c", 3),)),
    "exam": Box("exam: the true score", (3.55, 0.3), (("14b", 6), ("14c", 4))),
}


def draw_stages(part: str) -> None:
    """Draw the way from a completer to an assistant: boxes built in notebook `part` in colour, others grey.

    An arrow leads from the maker of what its label says to the user. CourseError for another part.
    """
    if part not in PARTS:
        raise CourseError(f"no drawing for part {part!r}; expected one of: {', '.join(PARTS)}")
    axes = plt.figure(layout="none", figsize=(WIDTH, HEIGHT)).add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    axes.axis("off")
    for box in BOXES.values():
        draw_box(axes, box, any(label == part for label, _ in box.built))
    x, y = ({name: box.at[i] for name, box in BOXES.items()} for i in (0, 1))
    top, foot = ({name: at + by for name, at in y.items()} for by in (BOX_HEIGHT / 2, -BOX_HEIGHT / 2))
    side = BOX_WIDTH / 2

    arrow(axes, (x["requests"], foot["requests"]), (2.7, top["sft"]))
    note(axes, 2.1, 4.35, "prompts", "right")
    arrow(axes, (x["corpus"], foot["corpus"]), (3.5, top["sft"]))
    note(axes, 4.12, 4.35, "answers to learn from", "left")
    arrow(axes, (2.5, foot["sft"]), (x["reader"] + 0.5, top["reader"]))
    note(axes, 1.86, 3.44, "4 answers to a prompt", "right")
    arrow(axes, (x["reader"] + side, y["reader"]), (x["reward"], y["reader"]), (x["reward"], top["reward"]))
    note(axes, 3.7, y["reader"] + 0.1, "verdicts", "center")
    arrow(axes, (x["reader"], foot["reader"]), (x["dpo"], top["dpo"]))
    note(axes, x["dpo"] + 0.07, 2.05, "verdicts", "left")
    arrow(axes, (x["best"], foot["sft"]), (x["best"], top["best"]))
    note(axes, x["best"] - 0.07, 2.05, "n answers", "right")
    arrow(axes, (3.85, foot["reward"]), (x["best"] + 0.5, top["best"]))
    note(axes, 3.4, 1.85, "rewards", "right")
    for judge, policy in (("reward", "ppo"), ("check", "grpo")):
        down, up = x[policy] - 0.17, x[policy] + 0.17
        arrow(axes, (down, foot[judge]), (down, top[policy]))
        note(axes, down - 0.06, 1.7, "rewards", "right")
        arrow(axes, (up, top[policy]), (up, foot[judge]))
        note(axes, up + 0.06, 1.78, "answers", "left")

    between, left = (x["ppo"] + x["grpo"]) / 2, 0.08
    for policy, turn in (("dpo", left), ("ppo", between), ("grpo", between)):
        out = side if turn > x["sft"] else -side
        into = side if turn > x[policy] else -side
        start, end = (x["sft"] + out, y["sft"]), (x[policy] + into, y[policy])
        arrow(axes, start, (turn, y["sft"]), (turn, y[policy]), end, color=REFERENCE)
    note(axes, 4.02, y["sft"] + 0.11, "reference (KL)", "left", REFERENCE)
    note(axes, 1.3, y["sft"] + 0.11, "reference (KL)", "center", REFERENCE)
    for name, end in (("dpo", 2.75), ("best", 3.15), ("ppo", 3.9), ("grpo", 4.35)):
        arrow(axes, (x[name], foot[name]), (end, top["exam"]))
    note(axes, 5.5, 0.7, "answers", "left")


def draw_box(axes: Axes, box: Box, new: bool) -> None:
    """A rounded box around its text and the sections that build it."""
    (x, y), (edge, fill) = box.at, (NEW, NEW_FILL) if new else (OLD, OLD_FILL)
    width = BOX_WIDTH + (0.5 if len(box.built) > 1 else 0)
    style = {"boxstyle": "round,pad=0,rounding_size=0.06", "ec": edge, "fc": fill, "lw": 1.4, "zorder": 3}
    axes.add_patch(FancyBboxPatch((x - width / 2, y - BOX_HEIGHT / 2), width, BOX_HEIGHT, **style))
    axes.text(x, y + 0.1, box.text, fontsize=9.5, ha="center", va="center", zorder=5)
    axes.text(x, y - 0.12, box.sections, fontsize=8, ha="center", va="center", zorder=5, color="#444444")


def arrow(axes: Axes, *points: Point, color: str = OLD) -> None:
    """A line through the points that ends in an arrow; dashed for the reference."""
    dashes = "--" if color == REFERENCE else "-"
    axes.plot(*zip(*points[:-1], strict=True), color=color, lw=1.2, ls=dashes, zorder=2)
    style = {
        "arrowstyle": "-|>",
        "color": color,
        "lw": 1.2,
        "ls": dashes,
        "shrinkA": 0,
        "shrinkB": 0,
        "mutation_scale": 10,
    }
    axes.annotate("", points[-1], points[-2], arrowprops=style, zorder=2)


def note(axes: Axes, x: float, y: float, text: str, ha: str, color: str = "#333333") -> None:
    """What an arrow carries."""
    axes.text(x, y, text, fontsize=9, ha=ha, va="center", color=color, style="italic", zorder=5)
