"""Promotion: what a module looks like, and every way in which notebook and library may disagree."""

import subprocess
import sys

import pytest
from conftest import FIRST, SECOND, Course

from lecture_lib.course import promotion


def module_text(course: Course, name: str = "numbers") -> str:
    return (course.library / f"{name}.py").read_text(encoding="utf-8")


def only_problem(course: Course) -> str:
    (problem,) = course.check()
    return problem


# ---------------------------------------------------------------- what is written


def test_module_reads_as_if_written_by_hand(course):
    assert module_text(course) == (
        '"""Numbers.\n\nVideo 1:02, 3:04.\n'
        "Promoted from notebooks/01_numbers.ipynb by `lecture promote`: edit the notebook, not this file.\n"
        '"""\n\nimport math\n\n__all__ = ["area", "double"]\n\n\n'
        'def double(x):\n    """Twice `x`."""\n    return 2 * x\n\n\n'
        "def area(r):\n    return math.pi * double(r) ** 2 / 4\n"
    )


def test_fresh_course_has_no_problem(course):
    assert course.check() == []


def test_promoting_again_writes_nothing(course):
    assert promotion.promote(course.notebooks, course.library) == []


def test_only_used_imports_are_taken(course):
    course.write("01_numbers", [FIRST[0], "import json, math", *FIRST[2:]])
    promotion.promote(course.notebooks, course.library)
    assert "import math" in module_text(course)
    assert "json" not in module_text(course)


def test_named_module_has_its_section_as_title_and_is_imported_by_its_neighbour(course):
    course.write(
        "01_numbers",
        [
            FIRST[0],
            "## 1. Doubling",
            "#| export twice\ndef double(x):\n    return 2 * x",
            "#| export\ndef six():\n    return double(3)",
        ],
    )
    course.write(
        "02_more",
        [
            "# 02. More",
            "from lecture_lib.twice import double",
            "#| export\ndef quadruple(x):\n    return double(double(x))",
        ],
    )
    promotion.promote(course.notebooks, course.library)
    assert module_text(course, "twice").startswith('"""Doubling.\n\nVideo 1:02, 3:04.')
    assert "from lecture_lib.twice import double" in module_text(course)
    assert course.check() == []


def test_main_becomes_a_script(course):
    course.write("01_numbers", [*FIRST, '#| export\ndef main():\n    print("ran")'])
    promotion.promote(course.notebooks, course.library)
    done = subprocess.run(
        [sys.executable, "-m", "lecture_lib.numbers"],
        cwd=course.library.parent,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "ran\n"
    assert course.check() == []  # importing it prints nothing: main runs only as a script


# ---------------------------------------------------------------- planted faults


def test_module_edited_by_hand(course):
    path = course.library / "numbers.py"
    path.write_text(module_text(course).replace("2 * x", "3 * x"), encoding="utf-8")
    problem = only_problem(course)
    assert "lecture_lib/numbers.py differs from notebooks/01_numbers.ipynb, cell 3" in problem
    assert "-    return 3 * x" in problem
    assert "+    return 2 * x" in problem


def test_change_in_a_later_definition_names_its_own_cell(course):
    path = course.library / "numbers.py"
    path.write_text(module_text(course).replace("/ 4", "/ 5"), encoding="utf-8")
    assert "01_numbers.ipynb, cell 4" in only_problem(course)


def test_lines_added_at_the_end_of_a_module(course):
    path = course.library / "numbers.py"
    path.write_text(module_text(course) + "\n\nSECRET = 1\n", encoding="utf-8")
    assert "-SECRET = 1" in only_problem(course)


def test_module_that_was_never_promoted(course):
    (course.library / "numbers.py").unlink()
    assert any("numbers.py: missing" in problem for problem in course.check())


def test_orphan_module(course):
    (course.library / "stray.py").write_text("x = 1\n")
    assert "stray.py: no notebook exports to it" in only_problem(course)


def test_name_exported_twice(course):
    course.write("02_more", [*SECOND, "#| export\ndef double(x):\n    return x + x"])
    problem = only_problem(course)
    assert (
        "02_more.ipynb, cell 4: exports 'double', which notebooks/01_numbers.ipynb, cell 3 exports already"
        in problem
    )


def test_module_with_two_notebooks(course):
    course.write("02_more", [*SECOND, "#| export numbers\ndef triple(x):\n    return 3 * x"])
    assert "a module has one notebook as its source" in only_problem(course)


@pytest.mark.parametrize(
    "line",
    [
        "from lecture_lib.more import quadruple",
        "import lecture_lib.more",
        "from lecture_lib import more",
        "def f():\n    import lecture_lib.more",
    ],
)
def test_notebook_that_imports_a_later_chapter(course, line):
    course.write("01_numbers", [*FIRST, line])
    problem = only_problem(course)
    assert "01_numbers.ipynb, cell 6: imports lecture_lib.more, whose source is 02_more.ipynb" in problem


def test_global_read_from_the_notebook(course):
    course.write("01_numbers", [*FIRST, "factor = 3", "#| export\ndef scaled(x):\n    return factor * x"])
    problem = only_problem(course)
    assert "cell 7: exports code that reads 'factor'" in problem
    assert "cell 6 sets it without exporting it" in problem


def test_name_from_nowhere(course):
    course.write("01_numbers", [*FIRST, "#| export\ndef f(x):\n    return nowhere(x)"])
    assert "the notebook does not define it at top level" in only_problem(course)


@pytest.mark.parametrize(
    "source",
    [
        "#| export\nprint('training')",
        "#| export\nfor i in range(3):\n    pass",
        "#| export\nmodel = list()",
        "#| export\nmath.tau = 7",
    ],
)
def test_cell_that_would_run_on_import(course, source):
    course.write("01_numbers", [*FIRST, source])
    assert "cell 6: an exported cell may only import, define" in only_problem(course)


def test_constants_may_be_exported(course):
    course.write("01_numbers", [*FIRST, "#| export\nDOZEN: int = 12"])
    promotion.promote(course.notebooks, course.library)
    assert "DOZEN: int = 12" in module_text(course)
    assert '"DOZEN"' in module_text(course)
    assert course.check() == []


def test_module_that_does_not_import(course):
    course.write(
        "01_numbers",
        [
            FIRST[0],
            "from math import no_such_thing",
            "#| export\ndef double(x):\n    return no_such_thing(x)",
        ],
    )
    promotion.promote(course.notebooks, course.library)
    problems = course.check()
    assert any(
        "numbers.py: does not import quietly" in problem and "ImportError" in problem for problem in problems
    )


def test_magics_are_refused(course):
    course.write("01_numbers", [*FIRST, "%matplotlib inline"])
    assert "cell 6: not plain Python, line 1" in only_problem(course)


def test_imports_beside_definitions_are_refused(course):
    course.write("01_numbers", [*FIRST, "#| export\nimport json\ndef f():\n    return json"])
    assert "cell 6: an exported cell holds imports beside definitions" in only_problem(course)


# ---------------------------------------------------------------- free names


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(x): return x + y", {"y"}),
        ("def f(x):\n    y = 1\n    return lambda: x + y + z", {"z"}),
        ("class A(Base):\n    n: Kind = 0\n    def f(self): return n", {"Base", "Kind", "n"}),
        ("def f(x: Tensor) -> Out: return [g(i) for i in x]", {"Tensor", "Out", "g"}),
        ("import a\nfrom b import c\nd = a + c + len([])", set()),
        ("@wrap\ndef f(): return f", {"wrap"}),
    ],
)
def test_free_names(source, expected):
    assert promotion.free_names(source) == expected


def test_public_names_are_listed_in_the_order_that_the_style_check_keeps():
    names = ["double", "Wide", "GPT", "area", "Block"]
    assert sorted(names, key=promotion.as_in_an_import) == ["GPT", "Block", "Wide", "area", "double"]
