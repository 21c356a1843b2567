"""The drawing of chapters 14 to 14c: its sections exist, and it can be read."""

from itertools import combinations

import matplotlib
import pytest

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

from lecture_lib.base.errors import CourseError
from lecture_lib.course.chapters import find_chapter
from lecture_lib.course.drawings import NEW
from lecture_lib.course.plots import use_style
from lecture_lib.course.stages import BOXES, PARTS, draw_stages


@pytest.fixture(params=PARTS)
def picture(request):
    with plt.rc_context():
        use_style()
        draw_stages(request.param)
        plt.gcf().canvas.draw()
        yield request.param, plt.gca()
        plt.close()


def test_every_box_names_a_section_of_its_notebook():
    for box in BOXES.values():
        for part, number in box.built:
            headings = "\n".join(
                c.source for c in find_chapter(part).notebook.cells if c.cell_type == "markdown"
            )
            assert f"\n## {number}. " in f"\n{headings}", (box.text, part, number)


def test_a_notebook_s_own_boxes_are_in_colour(picture):
    part, axes = picture
    coloured = [patch for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    own = sum(any(label == part for label, _ in box.built) for box in BOXES.values())
    assert sum(matplotlib.colors.to_hex(patch.get_edgecolor()) == NEW for patch in coloured) == own > 0


def test_no_text_covers_another_or_leaves_the_picture(picture):
    _, axes = picture
    written = [(text.get_text(), text.get_window_extent()) for text in axes.texts if text.get_text()]
    for (first, here), (second, there) in combinations(written, 2):
        assert not here.overlaps(there), (first, second)
    frame = axes.figure.bbox
    for text, place in written:
        assert frame.x0 <= place.x0 and place.x1 <= frame.x1, text
        assert frame.y0 <= place.y0 and place.y1 <= frame.y1, text


def test_another_part_is_refused():
    with pytest.raises(CourseError, match="no drawing for part '13'; expected one of: 14, 14b, 14c"):
        draw_stages("13")
