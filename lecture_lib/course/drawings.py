"""Drawings: the architecture from chapter 05 to 11, the Transformer, attention between tokens, heads."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

from lecture_lib.base.errors import CourseError

# ---------------------------------------------------------------- what there is to draw

# What each chapter adds.
STAGES = {
    "05": "positions, one head, an output layer",
    "06": "the loop that writes text",
    "07": "several heads, concatenated",
    "08": "a feed-forward layer",
    "09": "blocks with a residual stream, projections, 4C channels inside",
    "10": "layer norms",
    "11": "dropout",
}


@dataclass(frozen=True)
class Part:
    """One part of the architecture: its text, the chapter that builds it, the shape that leaves it.

    `until` is the last chapter that draws it, where a later part takes its place.
    """

    text: str
    since: str
    shape: str = ""
    until: str = "11"


IDS, STATE, HIDDEN, SCORES, OF_HEAD = "(B, T)", "(B, T, C)", "(B, T, 4C)", "wei (B, T, T)", "(B, T, hs)"

# The model, from bottom to top.
TOKENS, POSITIONS = Part("token\nembedding", "03", STATE), Part("position\nembedding", "05", "(T, C)")
SUM = Part("+", "05", STATE)
BODY, BLOCKS = Part("body", "05", STATE, until="08"), Part("n_layer blocks", "09", STATE)
FINISH = (Part("layer norm", "10", STATE), Part("lm_head", "05", "(B, T, vocab_size)"))
LOOP = Part("sample, append, crop to block_size", "06", IDS)

# Its body, or one of its blocks, from bottom to top.
NORM, DROPOUT = Part("layer norm", "10", STATE), Part("dropout", "11", STATE)
QUERY, KEY, VALUE = (Part(name, "05", OF_HEAD) for name in ("query", "key", "value"))
WEIGHTS = (Part("masked softmax\nof q @ k.T / √hs", "05", SCORES), Part("dropout of wei", "11", SCORES))
AVERAGE = Part("wei @ v", "05", OF_HEAD)
HEADS = Part("n_head heads", "07", f"n_head times {OF_HEAD}")
MERGE = (Part("concatenate", "07", STATE), Part("projection: C to C", "09", STATE), DROPOUT)
THINK = (
    Part("linear: C to C", "08", STATE, until="08"),
    Part("linear: C to 4C", "09", HIDDEN),
    Part("ReLU", "08"),  # the shape stays
    Part("projection: 4C to C", "09", STATE),
    DROPOUT,
)
STREAM = Part("residual stream", "09", STATE)

PARTS = (TOKENS, POSITIONS, SUM, BODY, BLOCKS, *FINISH, LOOP)
PARTS += (NORM, QUERY, KEY, VALUE, *WEIGHTS, AVERAGE, HEADS, *MERGE, *THINK[:-1], STREAM)


def parts(chapter: str) -> list[Part]:
    """The architecture's parts as far as `chapter` has built it; CourseError for another than 05 to 11."""
    if chapter not in STAGES:
        raise CourseError(f"no drawing for chapter {chapter!r}; expected one of: {', '.join(STAGES)}")
    return [part for part in PARTS if part.since <= chapter <= part.until]


# ---------------------------------------------------------------- how it is drawn, in inches

NEW, NEW_FILL, OLD, OLD_FILL = "#14735a", "#c5ebdd", "#8c8c8c", "#f2f2f2"  # edges and fills
FRAME, SHAPE = "#c4c4c4", "#606060"  # frames around parts, shapes beside arrows
WIDTH, LOOP_X, MODEL_X, STREAM_X, BODY_X = 7.0, 0.28, 1.62, 3.68, 5.28
ROW, GAP, HEAD_WIDTH, MODEL_HEIGHT = 0.25, 0.19, 2.5, 2.4


@dataclass
class Pen:
    """Draws parts on axes measured in inches: those of `chapter` in colour, earlier ones in grey."""

    axes: Axes
    chapter: str

    def has(self, part: Part) -> bool:
        return part in parts(self.chapter)

    def colours(self, part: Part) -> tuple[str, str]:
        return (NEW, NEW_FILL) if part.since == self.chapter else (OLD, OLD_FILL)

    def text(self, x: float, y: float, text: str, size: float = 9, **how) -> None:
        self.axes.text(x, y, text, fontsize=size, zorder=5, **{"ha": "center", "va": "center"} | how)

    def shape(self, x: float, y: float, shape: str, ha: str = "left") -> None:
        self.text(x, y, shape, 8, color=SHAPE, ha=ha)

    def frame(self, x: float, y: float, width: float, height: float, edge=FRAME, fill="white", z=1) -> None:
        """A rounded frame whose lower edge has its middle at (x, y)."""
        style = {"boxstyle": "round,pad=0,rounding_size=0.05", "ec": edge, "fc": fill, "lw": 1.2, "zorder": z}
        self.axes.add_patch(FancyBboxPatch((x - width / 2, y), width, height, **style))

    def box(self, x: float, y: float, width: float, part: Part) -> float:
        """A part that stands on (x, y), its text inside; returns its upper edge."""
        height = ROW + 0.15 * part.text.count("\n")
        self.frame(x, y, width, height, *self.colours(part), z=3)
        self.text(x, y + height / 2, part.text)
        return y + height

    def plus(self, x: float, y: float, part: Part) -> None:
        edge, fill = self.colours(part)
        self.axes.plot(x, y, "o", ms=13, mec=edge, mfc=fill, mew=1.2, zorder=3)
        self.text(x, y, "+", 11, va="center_baseline")

    def line(self, *points: tuple[float, float], color: str = OLD, lw: float = 1.1) -> None:
        """A line through the points that ends in an arrow."""
        self.axes.plot(*zip(*points[:-1], strict=True), color=color, lw=lw, zorder=2)
        style = {"arrowstyle": "-|>", "color": color, "lw": lw, "shrinkA": 0, "shrinkB": 0}
        self.axes.annotate("", points[-1], points[-2], arrowprops={**style, "mutation_scale": 8}, zorder=2)

    def up(self, x: float, y: float, shape: str = "") -> float:
        """An arrow upwards, with the shape of what it carries beside it; returns its upper end."""
        self.line((x, y), (x, y + GAP))
        self.shape(x + 0.07, y + GAP / 2, shape)
        return y + GAP

    def column(self, x: float, y: float, width: float, stack: tuple[Part, ...], shape: str):
        """The parts built so far, stacked above (x, y), fed with `shape`: upper edge, shape that leaves."""
        for part in filter(self.has, stack):
            y = self.box(x, self.up(x, y, shape), width, part)
            shape = part.shape or shape
        return y, shape


def draw_model(pen: Pen, y: float) -> tuple[float, float]:
    """From ids to logits, and the loop back: the edges, lower and upper, of the body's box."""
    foot, tokens_x, positions_x = y, MODEL_X - 0.55, MODEL_X + 0.58
    pen.text(tokens_x, y, "idx")
    pen.text(positions_x, y, "0 to T - 1")
    for x, part, shape in ((tokens_x, TOKENS, IDS), (positions_x, POSITIONS, "(T,)")):
        top = pen.box(x, pen.up(x, y + 0.1, shape), 1.0, part)
    y = top + 0.24
    pen.shape(tokens_x - 0.07, top + 0.12, TOKENS.shape, ha="right")
    pen.shape(positions_x + 0.07, top + 0.12, POSITIONS.shape)
    pen.line((tokens_x, top), (tokens_x, y), (MODEL_X - 0.1, y))
    pen.line((positions_x, top), (positions_x, y), (MODEL_X + 0.1, y))
    pen.plus(MODEL_X, y, SUM)
    y = pen.up(MODEL_X, y + 0.1, SUM.shape)
    lower = y
    if pen.has(BLOCKS):
        for shift in (0.12, 0.06):
            pen.frame(MODEL_X - shift, y + shift, 1.5, ROW, *pen.colours(BLOCKS))
    upper = pen.box(MODEL_X, y, 1.5, BLOCKS if pen.has(BLOCKS) else BODY)
    y, shape = pen.column(MODEL_X, upper + 0.12 * pen.has(BLOCKS), 1.5, FINISH, STATE)
    y = pen.up(MODEL_X, y, shape) + 0.08
    pen.text(MODEL_X, y, "logits")
    if pen.has(LOOP):
        points = (MODEL_X - 0.3, y), (LOOP_X, y), (LOOP_X, foot), (tokens_x - 0.18, foot)
        pen.line(*points, color=pen.colours(LOOP)[0], lw=1.6)
        pen.text(LOOP_X - 0.11, (foot + y) / 2, LOOP.text, rotation=90)
    return lower, upper


def draw_heads(pen: Pen, y: float, shape: str) -> tuple[float, str]:
    """One head, with the others as cards behind it, above y: its upper edge and the shape that leaves it."""
    foot = y = pen.up(BODY_X, y, shape)
    scores_x, value_x = BODY_X - 0.52, BODY_X + 0.62
    for x, part in ((scores_x - 0.35, QUERY), (scores_x + 0.35, KEY), (value_x, VALUE)):
        top = pen.box(x, y + 0.1, 0.6, part)
        pen.shape(x + 0.07, top + GAP / 2, part.shape)
    for x in (scores_x - 0.35, scores_x + 0.35):
        pen.line((x, top), (x, top + GAP))
    y, shape = pen.column(scores_x, pen.box(scores_x, top + GAP, 1.3, WEIGHTS[0]), 1.3, WEIGHTS[1:], SCORES)
    pen.line((value_x, top), (value_x, y + GAP))
    y = pen.box(BODY_X, pen.up(scores_x, y, shape), 2.34, AVERAGE) + 0.1
    cards = (0.18, 0.12, 0.06) if pen.has(HEADS) else ()
    for i, shift in enumerate(cards):
        pen.frame(BODY_X + shift, foot + shift, HEAD_WIDTH, y - foot, *pen.colours(HEADS), z=1 + i / 10)
    pen.frame(BODY_X, foot, HEAD_WIDTH, y - foot, z=1.5)
    if not cards:
        return y, f"{AVERAGE.shape}, hs = C"
    pen.text(BODY_X + HEAD_WIDTH / 2 + 0.32, (foot + y) / 2, HEADS.text, rotation=90)
    return y + cards[0], HEADS.shape


def draw_body(pen: Pen, y: float) -> float:
    """What lies between embeddings and output layer, or one block of it, from y upwards: its upper edge."""
    foot, edge, shape = y, pen.colours(STREAM)[0], STATE
    for attends in (True, False):
        if pen.has(STREAM):  # a copy leaves the stream
            y += 0.2
            pen.axes.plot((STREAM_X, BODY_X), (y, y), color=edge, lw=1.1, zorder=2)
        y, shape = pen.column(BODY_X, y, 2.3, (NORM,), shape)
        if attends:
            y, shape = draw_heads(pen, y, shape)
        y, shape = pen.column(BODY_X, y, 2.3, MERGE if attends else THINK, shape)
        if pen.has(STREAM):  # and what was made of it is added
            pen.line((BODY_X, y), (BODY_X, y + 0.2), (STREAM_X + 0.1, y + 0.2), color=edge)
            y += 0.2
            pen.plus(STREAM_X, y, STREAM)
    if pen.has(STREAM):
        y += 0.15
        pen.line((STREAM_X, foot), (STREAM_X, y + 0.15), color=edge, lw=3)
        pen.text(STREAM_X - 0.18, (foot + y) / 2, f"{STREAM.text} {STREAM.shape}", rotation=90)
        return y
    return pen.up(BODY_X, y, shape)


def draw_architecture(chapter: str) -> None:
    """Draw the model as far as `chapter`, "05" to "11", has built it: its own parts in colour, the rest grey.

    On the left the whole model, on the right the inside of its body; from chapter 09 on, of one block.
    Raises CourseError for another chapter.
    """
    parts(chapter)
    axes = plt.figure(layout="none").add_axes((0, 0, 1, 1))
    pen = Pen(axes, chapter)
    top = draw_body(pen, 0)
    foot = (top - MODEL_HEIGHT) / 2
    lower, upper = draw_model(pen, foot)
    left, right, end = MODEL_X + 0.75, STREAM_X - 0.4, WIDTH - 0.05
    axes.add_patch(Polygon([(left, lower), (right, 0), (right, top), (left, upper)], fc="#f3f3f3", zorder=0))
    pen.frame((right + end) / 2, 0, end - right, top, z=0.5)
    pen.text(end, top + 0.12, "inside one block" if pen.has(STREAM) else "inside the body", ha="right")
    floor, ceiling = min(0, foot) - 0.12, max(top, foot + MODEL_HEIGHT) + 0.55
    stage = {"size": 10, "color": NEW, "ha": "left", "weight": "bold"}
    pen.text(0.1, ceiling - 0.14, f"Chapter {chapter} adds: {STAGES[chapter]}", **stage)
    axes.set(xlim=(0, WIDTH), ylim=(floor, ceiling))
    axes.axis("off")
    axes.figure.set_size_inches(WIDTH, ceiling - floor)


# ---------------------------------------------------------------- the Transformer of 2017

MEMORY_EDGE = "#c98a1b"  # what the encoder hands to the decoder
HALF_WIDTH, ENCODER_X, DECODER_X = 2.2, 1.72, 5.28  # of the boxes, and their middles

# Its boxes from bottom to top: what is written in them, and the section of chapter 12, or the chapter, that
# builds them. In a block, a norm and the part after it make one branch of the residual stream.
TRANSFORMER_NORM, TRANSFORMER_FFWD = ("layer norm", "chapter 10"), ("feed-forward", "chapter 09")
TRANSFORMER_EMBEDDING, TRANSFORMER_HEAD = ("embedding + position", "section 4"), ("lm_head", "chapter 05")
ENCODER_PARTS = (("self-attention\nto all but padding", "sections 3, 4"), TRANSFORMER_FFWD)
CROSS = ("cross-attention\nto all but padding", "sections 3, 5")
DECODER_PARTS = (("self-attention\nto its own past", "sections 3, 5"), CROSS, TRANSFORMER_FFWD)


def draw_built(pen: Pen, x: float, y: float, text: str, built: str) -> float:
    """A box that stands on (x, y) and says where it is built; returns its upper edge."""
    new, height = built.startswith("section"), ROW + 0.15 * text.count("\n")
    pen.frame(x, y, HALF_WIDTH, height, *((NEW, NEW_FILL) if new else (OLD, OLD_FILL)), z=3)
    pen.text(x - HALF_WIDTH / 2 + 0.08, y + height / 2, text, ha="left")
    pen.text(x + HALF_WIDTH / 2 - 0.08, y + height / 2, built, 8, ha="right", color=NEW if new else SHAPE)
    return y + height


def draw_half(pen: Pen, x: float, stream_x: float, parts: tuple[tuple[str, str], ...]) -> tuple[list, float]:
    """Embedding, one block and last norm above (x, 0), the block's residual stream above stream_x.

    Returns the heights of the parts' middles, and the upper edge.
    """
    inwards, middles = 0.1 if stream_x < x else -0.1, []
    y = draw_built(pen, x, pen.up(x, 0), *TRANSFORMER_EMBEDDING)
    foot = y + 0.14
    pen.line((x, y), (x, foot), (stream_x, foot), (stream_x, foot + 0.22))
    y = foot + 0.14
    for part in parts:
        y += 0.16
        pen.axes.plot((stream_x, x), (y, y), color=OLD, lw=1.1, zorder=2)  # a copy leaves the stream
        y = draw_built(pen, x, pen.up(x, y), *TRANSFORMER_NORM)
        before = pen.up(x, y)
        y = draw_built(pen, x, before, *part)
        middles.append((before + y) / 2)
        pen.line((x, y), (x, y + 0.18), (stream_x + inwards, y + 0.18))  # and what was made of it is added
        y += 0.18
        pen.axes.plot(stream_x, y, "o", ms=13, mec=OLD, mfc=OLD_FILL, mew=1.2, zorder=3)
        pen.text(stream_x, y, "+", 11, va="center_baseline")
    top = y + 0.24
    pen.axes.plot((stream_x, stream_x), (foot, top), color=OLD, lw=3, zorder=2)
    width = HALF_WIDTH + 0.62
    pen.frame((x + stream_x) / 2 + 5 * inwards, foot + 0.07, width, top - foot - 0.12, z=0.5)
    pen.text(x, top - 0.15, "n_layer blocks", 8, color=SHAPE)
    pen.line((stream_x, top), (stream_x, top + 0.06), (x, top + 0.06), (x, top + 0.24))
    return middles, draw_built(pen, x, top + 0.24, *TRANSFORMER_NORM)


def draw_transformer(source: str, prefix: str, following: str) -> None:
    """Draw encoder, decoder and cross-attention: chapter 12's own parts in colour, earlier chapters' grey.

    The encoder reads `source`, the decoder `prefix`, and what comes out of it is `following`.
    """
    axes = plt.figure(layout="none").add_axes((0, 0, 1, 1))
    pen = Pen(axes, "12")
    _, memory = draw_half(pen, ENCODER_X, 0.32, ENCODER_PARTS)
    (_, across, _), top = draw_half(pen, DECODER_X, WIDTH - 0.32, DECODER_PARTS)
    for x, text, shape in ((ENCODER_X, source, "source (B, S)"), (DECODER_X, prefix, "target so far (B, T)")):
        pen.text(x, -0.13, text)
        pen.shape(x, -0.32, shape, ha="center")
    middle = (ENCODER_X + DECODER_X) / 2
    points = (ENCODER_X, memory), (ENCODER_X, memory + 0.2), (middle, memory + 0.2), (middle, across)
    pen.line(*points, (DECODER_X - HALF_WIDTH / 2, across), color=MEMORY_EDGE, lw=2)
    pen.text(ENCODER_X, memory + 0.34, f"memory {'(B, S, C)'}: keys and values", color=MEMORY_EDGE)
    y = draw_built(pen, DECODER_X, pen.up(DECODER_X, top), *TRANSFORMER_HEAD)
    y = pen.up(DECODER_X, y)
    pen.text(DECODER_X, y + 0.1, following)
    pen.shape(DECODER_X, y + 0.29, "logits (B, T, vocab_size)", ha="center")
    pen.text(
        0.1, y + 0.29, "Green: built in this chapter,\nin the section named", ha="left", va="top", color=NEW
    )
    for x, name in ((ENCODER_X, "encoder"), (DECODER_X, "decoder")):
        pen.text(x, -0.58, name, 11, weight="bold")
    axes.set(xlim=(0, WIDTH), ylim=(-0.72, y + 0.42))
    axes.axis("off")
    axes.figure.set_size_inches(WIDTH, y + 1.14)


# ---------------------------------------------------------------- attention

QUERY_EDGE, KEY_EDGE, VALUE_EDGE = "#8e5bb5", "#4878a8", "#c98a1b"
QUERY_FILL, KEY_FILL, VALUE_FILL = "#e3d3f0", "#cfe0f1", "#fae3bd"


def draw_query(labels: Sequence[str], scores: Sequence[float], weights: Sequence[float]) -> None:
    """Follow one token's query to its output, in a row of tokens that each have a key and a value.

    `scores` and `weights` belong to the tokens that the query meets: the earlier ones and, last, its own.
    The tokens after it are drawn pale.
    """
    axes = plt.figure(figsize=(WIDTH, 4.1), layout="none").add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, 4.1))
    axes.axis("off")
    pen, asker = Pen(axes, ""), len(scores) - 1
    columns = [1.78 + 0.65 * j for j in range(len(labels))]
    names = {
        0.25: "token",
        0.72: "key, value",
        1.25: "query",
        1.72: "score\nq · k / √hs",
        2.5: "weight\n(softmax)",
    }
    for y, name in ({**names, 3.72: "output\n(weight × v)"}).items():
        pen.text(0.1, y, name, ha="left", color=SHAPE)
    for j, (x, label) in enumerate(zip(columns, labels, strict=True)):
        met, key_x, value_x = j <= asker, x - 0.15, x + 0.15
        ink = "black" if met else FRAME
        pen.text(x, 0.25, label, 11, color=ink)
        for at, name, edge, fill in (
            (key_x, "k", KEY_EDGE, KEY_FILL),
            (value_x, "v", VALUE_EDGE, VALUE_FILL),
        ):
            pen.frame(at, 0.59, 0.24, 0.26, *((edge, fill) if met else (FRAME, "white")), z=3)
            pen.text(at, 0.72, name, color=ink)
        if met:
            pen.line((key_x, 0.85), (key_x, 1.6), color=KEY_EDGE)
            axes.plot(key_x, 1.25, "o", color=QUERY_EDGE, ms=5, zorder=4)
            pen.text(key_x, 1.72, f"{scores[j]:.2f}")
            pen.line((key_x, 1.85), (key_x, 2.1))
            axes.bar(key_x, weights[j], 0.2, 2.15, color="#b9b9b9", zorder=3)
            pen.text(key_x, 2.25 + weights[j], f"{weights[j]:.2f}")
            axes.plot((value_x, value_x), (0.85, 2.85), color=VALUE_EDGE, lw=1)
            pen.line((value_x, 2.85), (value_x, 3.55), color=VALUE_EDGE, lw=1 + 14 * weights[j])
    x = columns[asker]
    pen.frame(x + 0.325, 1.12, 0.24, 0.26, QUERY_EDGE, QUERY_FILL, z=3)
    pen.text(x + 0.325, 1.25, "q")
    axes.plot((columns[0] - 0.15, x + 0.2), (1.25, 1.25), color=QUERY_EDGE, lw=1.6, zorder=2)
    axes.plot((x + 0.08, x + 0.325, x + 0.325), (0.25, 0.25, 1.12), color=QUERY_EDGE, lw=1.1, zorder=2)
    width = max(x - columns[0] + 0.6, 1.2)
    middle = columns[0] - 0.3 + width / 2
    pen.frame(middle, 3.58, width, 0.28, VALUE_EDGE, VALUE_FILL, z=3)
    pen.text(middle, 3.72, f"output at {labels[asker]}")


def draw_table(
    axes: Axes, x: float, y: float, columns: int, rows: int, colour: str, alpha: float = 1
) -> None:
    """A table of square cells whose lower left corner is (x, y)."""
    for i in range(columns):
        for j in range(rows):
            cell = Rectangle((x + i, y + j), 1, 1, facecolor=colour, edgecolor="white", alpha=alpha)
            axes.add_patch(cell)


def draw_head_cut(T: int, n_head: int, hs: int) -> None:
    """Queries, keys and values of a text: (T, 3C), as one product makes them, and cut into heads (T, hs)."""
    C, shift = n_head * hs, 1.8
    height = T + shift * (n_head - 1)  # of the sheets, one behind the other
    table_y = height + 5
    axes = plt.figure(figsize=(7.6, 4.0), layout="none").add_axes((0, 0, 1, 1))
    axes.set(xlim=(-2, 3 * C + 1), ylim=(-2.5, table_y + T + 5), aspect="equal")
    axes.axis("off")
    small = {"ha": "center", "va": "center", "fontsize": 8}
    kinds = (("queries", QUERY_EDGE), ("keys", KEY_EDGE), ("values", VALUE_EDGE))
    for part, (name, colour) in enumerate(kinds):
        x = part * C
        middle = x + C / 2
        for head in range(n_head):
            shade = 0.25 + 0.75 * head / max(1, n_head - 1)
            draw_table(axes, x + head * hs, table_y, hs, T, colour, shade)
            axes.text(x + (head + 0.5) * hs, table_y - 0.8, f"{head}", **small)
            sheet_x, sheet_y = middle - (hs + shift * (n_head - 1)) / 2 + shift * head, shift * head
            draw_table(axes, sheet_x, sheet_y, hs, T, "white")
            draw_table(axes, sheet_x, sheet_y, hs, T, colour, shade)
            axes.text(sheet_x + hs + 0.6, sheet_y + 0.5, f"{head}", **small)
        axes.text(middle, table_y + T + 0.8, f"{name}: C", ha="center", color=colour)
        arrow = {"arrowstyle": "-|>", "color": colour, "lw": 1.4}
        axes.annotate("", (middle, height + 0.6), (middle, table_y - 1.3), arrowprops=arrow)
        axes.text(middle, -1, f"{name[0]}: (B, n_head, T, hs)", ha="center", va="center", fontsize=9)
    axes.text(-0.6, table_y + T / 2, "T", ha="right", va="center")
    title = f"one product: (B, T, 3C), of which one text is drawn; here C = {C}, n_head = {n_head}, hs = {hs}"
    axes.text(1.5 * C, table_y + T + 3.4, title, ha="center")
    axes.text(C / 2 + 0.8, height + 2.1, "cut the columns,\nstack the heads", fontsize=9, va="center")


def draw_graph(axes: Axes, wei: Sequence[Sequence[float]], labels: Sequence[str], title: str) -> None:
    """Arrows between tokens, each as wide as the weight (T, T) that it stands for, from 0.02 upwards.

    A node's colour is its weight on itself.
    """
    weights = [[float(weight) for weight in row] for row in wei]
    style = {
        "arrowstyle": "-|>",
        "connectionstyle": "arc3,rad=-0.5",
        "mutation_scale": 9,
        "color": "#33557799",
    }
    for t, row in enumerate(weights):
        for j, weight in enumerate(row):
            if weight >= 0.02 and j != t:
                arrow = FancyArrowPatch((j, 0), (t, 0), shrinkA=11, shrinkB=11, lw=0.2 + 5 * weight, **style)
                axes.add_patch(arrow)
        axes.text(t, 0, labels[t], ha="center", va="center", zorder=4)
    own = [row[t] for t, row in enumerate(weights)]
    axes.scatter(
        range(len(own)), [0] * len(own), 420, own, cmap="Oranges", vmin=0, vmax=1.3, ec="black", zorder=3
    )
    axes.set(title=title, xlim=(-0.6, len(own) - 0.4), ylim=(-0.4, 2))
    axes.axis("off")
