"""The exercises of 17c_calculator."""

from answers import exercise_tests

TestExercises = exercise_tests(
    "17c",
    ("17c.1", "leading zeros", "doesn't begin with zeros", "str(int(fourth + third[-1] + first[-1]))", "fourth + third[-1] + first[-1]"),
    ("17c.1", "ones first", "stand last", "fourth + third[-1] + first[-1]", "first[-1] + third[-1] + fourth"),
    ("17c.1", "the second step's digit", "of the second result", "(0, 4, 7)", "(0, 2, 7)"),
    ("17c.1", "carries and all", "the other is carried", "third[-1] + first[-1]", "third + first"),
    ("17c.1", "no digit for 0", "not as an empty text", "str(int(fourth + third[-1] + first[-1]))", "(fourth + third[-1] + first[-1]).lstrip('0')"),
    ("17c.1", "a number", "expected a text", "str(int(fourth + third[-1] + first[-1]))", "int(fourth + third[-1] + first[-1])"),
    ("17c.2", "stops too early", "leaves no remainder", "while b:", "while a % b:"),
    ("17c.2", "two digits", "step 4 is", "={a % b}", "={a % b:02}"),
    ("17c.2", "not handed on", "step 3 is", "a, b = b, a % b", "a, b = a, a % b"),
    ("17c.2", "one text", "expected a list of texts", "return steps", "return ';'.join(steps)"),
    ("17c.2", "the answer too", "steps, got", "return steps", "return [*steps, str(a)]"),
    ("17c.3", "each step alone", "Step 1 adds 0", " or step.split(\"=\")[0].split(\"+\")[-1] != carry", ""),
    ("17c.3", "carries alone", "Step 1 isn't true", "not holds(step) or ", ""),
    ("17c.3", "any first carry", "Nothing has been carried", "or step.split", "or place and step.split"),
    ("17c.3", "the digit for the carry", "All is well", "split(\"=\")[1][0]", "split(\"=\")[1][-1]"),
    ("17c.3", "counted from 1", "the equation is true", "return place", "return place + 1"),
    ("17c.3", "the number of steps", "All is well", "return None", "return len(steps)"),
    ("17c.4", "all texts vote", "has no answer", " if \":\" in text", ""),
    ("17c.4", "the largest", "aren't compared", "votes.most_common(1)[0][0]", "max(votes, key=int)"),
    ("17c.4", "the last of equals", "reached first", "votes.most_common(1)[0][0]", "max(reversed(votes), key=votes.get)"),
    ("17c.4", "whole texts", "expected '56'", "final_answer(text) for text", "text for text"),
    ("17c.4", "an empty text", "Nobody votes", "if votes else None", "if votes else ''"),
)  # fmt: skip
