"""The exercises of 17b_addition."""

from answers import exercise_tests

TestExercises = exercise_tests(
    "17b",
    ("17b.1", "no carry comes in", "you miss a carry", " + carry > 9", " > 9"),
    ("17b.1", "every nine", "you count every column of 9", " + carry > 9", " >= 9"),
    ("17b.1", "only the longer sum", "by which the sum is longer", lambda a, b: len(str(a + b)) - len(str(max(a, b)))),
    ("17b.1", "one too many", "expected 0, got 1", "count = carry = 0", "count, carry = 1, 0"),
    ("17b.2", "two digits alone", "The two digits alone can't tell", "written < x + y", "x + y > 9"),
    ("17b.2", "equal is a carry", "there is no carry", "written < x + y", "written <= x + y"),
    ("17b.2", "compared with one", "not with one of them", lambda x, y, written: written < x if x + y != 9 else written == 0),
    ("17b.2", "nines are carries", "no carry came in", lambda x, y, written: x + y >= 9),
    ("17b.3", "a prefix", "another digit before its line end", ' + "\\n"', ""),
    ("17b.3", "not closed", "there is no line end", lambda written, answer: written.split("\n")[0] == answer),
    ("17b.3", "nothing may follow", "doesn't matter", lambda written, answer: written == answer + "\n"),
    ("17b.3", "as numbers", "as numbers they may be equal", lambda written, answer: "\n" in written and int("0" + written.split("\n")[0]) == int("0" + answer)),
    ("17b.3", "at the end", "but not alone", lambda written, answer: "\n" in written and written.split("\n")[0].endswith(answer)),
    ("17b.4", "the sign first", "the sign stands first", 'digits[::-1] + ("-" if a < b else "+")', '("-" if a < b else "+") + digits[::-1]'),
    ("17b.4", "not reversed", "the units come first", "digits[::-1]", "digits"),
    ("17b.4", "no sign", "the sign is missing", ' + ("-" if a < b else "+")', ""),
    ("17b.4", "the distance", "the digits of the distance", "(a - b) % 1000", "abs(a - b)"),
    ("17b.4", "no zeros", "the prompt should be", "{a:03}-{b:03}", "{a}-{b}"),
    ("17b.4", "one text", "Expected two texts", "}=\", digits", "}=\" + digits"),
    ("17b.5", "from the left", "count from the right end", "count_up(prompt[::-1])[::-1]", "count_up(prompt)"),
    ("17b.5", "from the right", "so count from the left", "count_up(equals + answer)", "count_up((equals + answer)[::-1])[::-1]"),
    ("17b.5", "from 0", "units are 1", "last + 1 if character.isdecimal() else 0", "last + 1 if character.isdecimal() else -1"),
    ("17b.5", "no zeros", "has no column", "count_up(prompt[::-1])[::-1] + count_up(equals + answer)", "[c or 9 for c in count_up(prompt[::-1])[::-1] + count_up(equals + answer)]"),
    ("17b.5", "too few", "one for each character", "count_up(equals + answer)", "count_up(answer)"),
)  # fmt: skip
