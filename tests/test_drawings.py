"""The picture of the architecture that grows: what each chapter adds, and that it can be read."""

from itertools import combinations, pairwise

import matplotlib
import pytest

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

from lecture_lib.base.errors import CourseError
from lecture_lib.course.chapters import find_chapter
from lecture_lib.course.drawings import NEW, STAGES, draw_architecture, parts
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


def written(axes):
    return [(text.get_text(), text.get_window_extent()) for text in axes.texts if text.get_text()]


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


def test_no_text_lies_on_another_or_outside_the_picture(picture):
    texts = written(picture)
    for (one, here), (other, there) in combinations(texts, 2):
        assert not here.overlaps(there), (one, other)
    width, height = picture.figure.canvas.get_width_height()
    for text, box in texts:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text


def test_no_text_crosses_the_edge_of_a_box(picture):
    """A text lies inside a box or outside it; the cards behind the first one show only their edges."""
    boxes = [patch for patch in picture.patches if isinstance(patch, FancyBboxPatch) and patch.zorder >= 2]
    for text, extent in written(picture):
        for box in (patch.get_window_extent() for patch in boxes):
            inside = (
                box.x0 <= extent.x0 and extent.x1 <= box.x1 and box.y0 <= extent.y0 and extent.y1 <= box.y1
            )
            assert inside or not box.overlaps(extent), text


@pytest.mark.parametrize("chapter", ["04", "12", "5", "", "09_residual"])
def test_another_chapter_is_refused_with_the_choices(chapter):
    with pytest.raises(CourseError, match=f"chapter '{chapter}'; expected one of: 05, 06, .*, 11"):
        draw_architecture(chapter)
