"""The drawings: what each chapter adds to the architecture, and that every picture can be read."""

import re
from itertools import pairwise

import matplotlib
import pytest
from kit import assert_readable, written

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

from lecture_lib.base.errors import CourseError
from lecture_lib.course.chapters import find_chapter
from lecture_lib.course.drawings import (
    NEW,
    STAGES,
    draw_architecture,
    draw_graph,
    draw_head_cut,
    draw_query,
    draw_transformer,
    parts,
)
from lecture_lib.course.plots import use_style

CHAPTERS = list(STAGES)


@pytest.fixture(params=CHAPTERS)
def picture(request):
    with plt.rc_context():
        use_style()
        draw_architecture(request.param)
        plt.gcf().canvas.draw()
        yield plt.gca()
        plt.close()


@pytest.mark.parametrize(("before", "chapter"), [*pairwise(CHAPTERS)])
def test_each_chapter_adds_to_the_one_before(before, chapter):
    """What is not new stood in the picture before; what has gone is replaced."""
    new = [part for part in parts(chapter) if part.since == chapter]
    assert new and set(parts(chapter)) - set(new) <= set(parts(before))
    gone = set(parts(before)) - set(parts(chapter))
    assert len(gone) < len(new) and all(part.until == before for part in gone)


def test_every_stage_is_a_chapter():
    assert [find_chapter(chapter).label for chapter in CHAPTERS] == CHAPTERS


def test_every_part_is_written_and_the_new_ones_are_in_colour(picture):
    chapter = next(chapter for chapter in CHAPTERS if f"Chapter {chapter} " in written(picture)[-1][0])
    texts = [text for text, _ in written(picture)]
    assert all(any(part.text in text for text in texts) for part in parts(chapter))
    edges = {matplotlib.colors.to_hex(patch.get_edgecolor()) for patch in picture.patches}
    lines = {line.get_color() for line in picture.lines}
    assert NEW in edges | lines


def test_the_architecture_is_readable(picture):
    assert_readable(picture)


def assert_no_text_crosses_an_edge(axes):
    """A text lies inside a box or outside it; the cards behind the first one show only their edges."""
    boxes = [patch for patch in axes.patches if isinstance(patch, FancyBboxPatch) and patch.zorder >= 2]
    for text, extent in written(axes):
        for box in (patch.get_window_extent() for patch in boxes):
            inside = (
                box.x0 <= extent.x0 and extent.x1 <= box.x1 and box.y0 <= extent.y0 and extent.y1 <= box.y1
            )
            assert inside or not box.overlaps(extent), text


def test_no_text_crosses_the_edge_of_a_box(picture):
    assert_no_text_crosses_an_edge(picture)


def test_the_transformer_is_readable_and_names_what_builds_its_boxes():
    with plt.rc_context():
        use_style()
        draw_transformer("les réseaux de neurones sont géniaux !", "<start>neural net", "neural netw")
        plt.gcf().canvas.draw()
        assert_readable(plt.gca())
        assert_no_text_crosses_an_edge(plt.gca())
        texts = [text for text, _ in written(plt.gca())]
        plt.close()
    builders = [text for text in texts if text.startswith(("section", "chapter"))]
    assert len(builders) == 15
    prose = "\n".join(cell.source for cell in find_chapter("12").notebook.cells)
    for text in builders:
        for number in re.findall(r"\d+", text):
            assert find_chapter(number) if text.startswith("chapter") else f"\n## {number}. " in f"\n{prose}"


@pytest.mark.parametrize("chapter", ["04", "12", "5", "", "09_residual"])
def test_another_chapter_is_refused_with_the_choices(chapter):
    with pytest.raises(CourseError, match=f"chapter '{chapter}'; expected one of: 05, 06, .*, 11"):
        draw_architecture(chapter)


@pytest.mark.parametrize("weights", [[0.0, 0.01, 0.99], [1.0], [0.11, 0.27, 0.09, 0.19, 0.14, 0.1, 0.1]])
def test_a_query_is_readable_and_meets_its_past_alone(weights):
    draw_query(list("speech␣M"), [-12.34] * len(weights), weights)
    plt.gcf().canvas.draw()
    assert_readable(plt.gca())
    assert sum(text == "-12.34" for text, _ in written(plt.gca())) == len(weights)
    plt.close()


@pytest.mark.parametrize("sizes", [(5, 4, 4), (3, 1, 8), (6, 2, 5)])
def test_the_cut_into_heads_is_readable_and_loses_no_cell(sizes):
    T, n_head, hs = sizes
    draw_head_cut(T, n_head, hs)
    plt.gcf().canvas.draw()
    axes = plt.gca()
    assert_readable(axes)
    shown = [patch for patch in axes.patches if matplotlib.colors.to_hex(patch.get_facecolor()) != "#ffffff"]
    assert len(shown) == 2 * 3 * T * n_head * hs  # above and below
    plt.close()


def test_a_graph_has_an_arrow_for_every_weight_that_counts():
    axes = plt.figure().add_subplot()
    draw_graph(axes, [[1, 0, 0], [0.5, 0.5, 0], [0.01, 0.09, 0.9]], list("abc"), "")
    assert len(axes.patches) == 2  # 0.01 is too thin to be seen, and no arrow leads from a token to itself
    plt.close()
