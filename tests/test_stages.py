"""The drawing of chapters 14 to 14c: its sections exist, and it can be read."""

import matplotlib
import pytest
from kit import assert_readable

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
            assert f"\n## {number}. " in f"\n{find_chapter(part).prose}", (box.text, part, number)


def test_a_notebook_s_own_boxes_are_in_colour(picture):
    part, axes = picture
    coloured = [patch for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    own = sum(any(label == part for label, _ in box.built) for box in BOXES.values())
    assert sum(matplotlib.colors.to_hex(patch.get_edgecolor()) == NEW for patch in coloured) == own > 0


def test_no_text_covers_another_or_leaves_the_picture(picture):
    assert_readable(picture[1])


def test_another_part_is_refused():
    with pytest.raises(CourseError, match="no drawing for part '13'; expected one of: 14, 14b, 14c"):
        draw_stages("13")
