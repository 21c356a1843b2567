"""Promotion: what a module looks like, and every way in which notebook and library may disagree."""

import subprocess
import sys

import pytest
from small_course import CHAPTERS_PAGE, FIRST, SECOND

# ---------------------------------------------------------------- what is written


def test_module_reads_as_if_written_by_hand(course):
    assert course.text() == (
        '"""Numbers.\n\nFrom notebooks/01_numbers.ipynb.\nVideo 1:02, 3:04.\n'
        "Written by `lecture promote`: edit the notebook, not this file.\n"
        '"""\n\nimport math\n\n__all__ = ["area", "double"]\n\n\n'
        'def double(x):\n    """Twice `x`."""\n    return 2 * x\n\n\n'
        "def area(r):\n    return math.pi * double(r) ** 2 / 4\n"
    )


def test_the_package_and_the_page_of_chapters_list_the_modules(course):
    assert course.text("__init__").splitlines()[2:6] == [
        "notebook    module   what it holds",
        "----------  -------  -------------",
        "01_numbers  numbers  Numbers",
        "02_more     more     More numbers",
    ]
    rows = CHAPTERS_PAGE.replace("| numbers |  |", "| numbers | [numbers](../lecture_lib/numbers.py) |")
    assert course.page.read_text() == rows.replace("| more |  |", "| more | [more](../lecture_lib/more.py) |")


def test_fresh_course_has_no_problem_and_nothing_to_write(course):
    assert course.check() == []
    assert course.promote() == []


def test_a_named_module_has_its_own_title_section_and_time(course):
    two = [
        "## 1. Doubling",
        "#| export twice: Multiply by two\ndef double(x):\n    return 2 * x",
        "## 2. Halves and quarters ([7:08](https://youtu.be/x?t=428))",
        "#| export twice\ndef half(x):\n    return x / 2",
        "#| export twice\ndef _third(x):\n    return half(x)",
        "#| export\ndef six():\n    return double(3)",
    ]
    course.write("01_numbers", [FIRST[0], *two])
    course.write("02_more", [SECOND[0], SECOND[1].replace("numbers", "twice"), SECOND[2]])
    course.promote()
    assert course.text("twice").startswith(
        '"""Multiply by two.\n\n'
        'From notebooks/01_numbers.ipynb, section "2. Halves and quarters".\nVideo 7:08.\n'
    )
    assert '__all__ = ["double", "half"]' in course.text("twice")  # `_third` is its own affair
    assert "from lecture_lib.twice import double\n" in course.text("numbers")  # of the same notebook
    assert "01_numbers  twice    Multiply by two\n            numbers  Numbers\n" in course.text("__init__")
    assert (
        "[twice](../lecture_lib/twice.py), [numbers](../lecture_lib/numbers.py) |" in course.page.read_text()
    )
    assert course.check() == []


def test_only_used_imports_are_taken_each_once(course):
    course.write("01_numbers", [FIRST[0], "import json, math\nimport math", *FIRST[2:], "import math"])
    course.promote()
    assert '"""\n\nimport math\n\n__all__' in course.text()
    assert course.check() == []


@pytest.mark.parametrize(
    "constant",
    [
        "DOZEN: int = 12",
        "SQUARES = {k: k * k for k in range(3)}",
        "TAU, E = 2 * math.pi, math.e",
        "LARGEST = max",
    ],
)
def test_constants_may_be_exported(course, constant):
    course.write("01_numbers", [*FIRST, f"#| export\n{constant}"])
    course.promote()
    assert constant in course.text()
    assert course.check() == []


def test_main_becomes_a_script(course):
    course.write("01_numbers", [*FIRST, '#| export\ndef main():\n    print("ran")'])
    course.write("02_more", [*SECOND, '#| export\ndef main():\n    print("ran, too")'])
    course.promote()
    command = [sys.executable, "-m", "lecture_lib.numbers"]
    done = subprocess.run(command, cwd=course.library.parent, capture_output=True, text=True)
    assert done.stdout == "ran\n"
    assert course.check() == []  # importing it prints nothing: main runs only as a script


def test_public_names_stand_in_the_order_that_the_style_check_keeps(course):
    classes = "\n\n".join(f"class {name}:\n    pass" for name in ("Wide", "GPT", "Block"))
    course.write("01_numbers", [*FIRST, f"#| export\n{classes}"])
    course.promote()
    assert '__all__ = ["GPT", "Block", "Wide", "area", "double"]' in course.text()


# ---------------------------------------------------------------- planted faults in the library


@pytest.mark.parametrize(
    ("file", "old", "new", "source"),
    [
        ("numbers.py", "2 * x", "3 * x", "notebooks/01_numbers.ipynb, cell 3"),
        ("numbers.py", "/ 4", "/ 5", "notebooks/01_numbers.ipynb, cell 5"),
        ("numbers.py", "/ 4\n", "/ 4\n\n\nSECRET = 1\n", "notebooks/01_numbers.ipynb, cell 5"),
        ("numbers.py", "Video 1:02", "Video 1:03", "notebooks/01_numbers.ipynb, cell 3"),
        ("__init__.py", "More numbers", "Fewer numbers", "the notebooks"),
        ("../docs/chapters.md", "[more]", "[less]", "the notebooks"),
    ],
)
def test_a_file_edited_by_hand(course, file, old, new, source):
    path = (course.library / file).resolve()
    path.write_text(path.read_text().replace(old, new), encoding="utf-8")
    (problem,) = course.check()
    name = path.relative_to(course.library.parent)
    assert problem.startswith(f"{name} differs from {source}; edit the notebook, then run `lecture promote`")
    assert any(line.startswith("-") and new.split()[-1] in line for line in problem.splitlines())


def test_module_that_was_never_promoted(course):
    (course.library / "numbers.py").unlink()
    assert course.check() == ["lecture_lib/numbers.py is missing; run `lecture promote`"]


def test_orphan_module(course):
    (course.library / "stray.py").write_text("x = 1\n")
    (problem,) = course.check()
    assert "stray.py: no notebook exports to it" in problem


# ---------------------------------------------------------------- planted faults in the notebooks

TRIPLE = "def triple(x):\n    return 3 * x"
LATER = "01_numbers.ipynb, cell 7: imports lecture_lib.more, whose source is 02_more.ipynb"
RUNS = "cell 7: an exported cell may only import, define"


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("from lecture_lib.more import quadruple", LATER),
        ("import lecture_lib.more", LATER),
        ("from lecture_lib import more", LATER),
        ("def f():\n    import lecture_lib.more", LATER),
        ("#| export\ndef eight(x):\n    return double(quadruple(x))", "exports code that reads 'quadruple'"),
        ("#| export\ndef f(x):\n    return nowhere(x)", "the notebook does not define it at top level"),
        ("#| export\ndef f(x: Nowhere):\n    return x", "exports code that reads 'Nowhere'"),
        ("#| export\ndef f(x):\n    return [nowhere(x)]  # noqa: F821", "exports code that reads 'nowhere'"),
        ("#| export\nprint('training')", RUNS),
        ("#| export\nfor i in range(3):\n    pass", RUNS),
        ("#| export\nmodel = list()", RUNS),
        ("#| export\nmath.tau = 7", RUNS),
        ("#| export\nMODEL = trained(1000)", "this would run on import: MODEL = trained(1000)"),
        ("#| export\nTEXTS = [open(name).read() for name in 'ab']", RUNS),
        ("#| export\nlarge, SMALL = 2, 1", RUNS),
        (f"#| export more: More\n{TRIPLE}", "a module has one notebook as its source"),
        (f"#| export times\n{TRIPLE}", "cell 7: lecture_lib/times.py has no title"),
        *(
            (f"{near}\n{TRIPLE}", f"has {near.strip()!r}; expected `#| export`, `#| export module` or")
            for near in ("#| export times X", "#|export", "#| Export", "#| exports", "#|  export", "#export")
        ),
        (f"N = 1\n#| export\n{TRIPLE}", "has '#| export'; expected"),
        (f" #| export\n{TRIPLE}".replace(" #", "\n#"), "has '#| export'; expected"),
        ("%matplotlib inline", "cell 7: not plain Python, line 1"),
        ("#| export\nimport json\ndef f():\n    return json", "mixes imports and definitions"),
        ("#| export\nreturn", RUNS),
        ("from time import time as double", "cell 3: Redefinition of unused `double`"),
    ],
)  # fmt: skip
def test_a_cell_that_cannot_be_promoted(course, cell, message):
    course.write("01_numbers", [*FIRST, cell])
    problem = course.check()[0]
    assert message in problem


def test_an_earlier_chapters_function_must_be_imported_by_the_notebook_itself(course):
    course.write("02_more", [SECOND[0], *SECOND[2:]])
    (problem,) = course.check()
    assert "notebooks/02_more.ipynb, cell 1: exports code that reads 'double'" in problem
    assert "pass it as an argument, export it, or import it from an earlier chapter" in problem


def test_every_name_that_is_missing_is_told_with_the_cell_that_sets_it(course):
    reader = "#| export\ndef scaled(x):\n    return factor * x + shift"
    course.write("01_numbers", [*FIRST, "factor = 3", reader])
    first, second = course.check()[0].splitlines()
    assert "cell 8: exports code that reads 'factor'" in first
    assert "cell 7 sets it without exporting it" in first
    assert "'shift'" in second


def test_name_exported_twice(course):
    course.write("02_more", [*SECOND, "#| export\ndef double(x):\n    return x + x"])
    (problem,) = course.check()
    first = "notebooks/01_numbers.ipynb, cell 3"
    assert f"02_more.ipynb, cell 4: exports 'double', which {first} exports already" in problem


def test_private_names_may_be_the_same_in_two_modules(course):
    for stem, cells in [("01_numbers", FIRST), ("02_more", SECOND)]:
        course.write(stem, [*cells, f"#| export own_{stem[:2]}: Its own\ndef _helper():\n    pass"])
    course.promote()
    assert "__all__ = []" in course.text("own_01")
    assert course.check() == []


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["from math import gone", "#| export\ndef f():\n    return gone"], "cannot import name 'gone'"),
        (["import this", "#| export\ndef f():\n    return this"], "Beautiful is better than ugly."),
        (["import exits", "#| export\ndef f():\n    return exits"], "ended with status"),
    ],
)  # fmt: skip
def test_module_that_does_not_import_quietly(course, cells, said):
    (course.library.parent / "exits.py").write_text("import os\nos._exit(3)")
    course.write("01_numbers", [*FIRST, *cells])
    course.promote()
    (first, *others) = course.check()
    assert (
        first.startswith("lecture_lib/numbers.py: does not import quietly in a clean process")
        and said in first
    )
    assert all(problem.startswith("lecture_lib/more.py") for problem in others)  # it imports numbers


def test_every_module_is_imported_where_no_other_is(course):
    others = "{name for name in sys.modules if name.startswith('lecture_lib.') and '.base' not in name}"
    (course.library.parent / "alone.py").write_text(f"import sys\nassert len({others}) == 1, {others}")
    for stem, cells in [("01_numbers", FIRST), ("02_more", SECOND[:1])]:
        course.write(stem, [*cells, "import alone", f"#| export\ndef by_{stem[3:]}():\n    return alone"])
    course.promote()
    assert course.check() == []
