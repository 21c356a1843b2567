"""The exercises of 12b_translation."""

from answers import exercise_tests

MASK = "past | source  #"
LENGTH = "((5 + ids.index(END)) / 6) ** alpha"
CHANGE = "changed[:, t + 1 :] = (idx[:, t + 1 :] + 1)"
POSSIBLE = "[each for each in allowed if each[: len(text)] == text]"
TOKENS = "tokens = sorted({each[len(text)] for each in possible})"

TestExercises = exercise_tests(
    "12b",
    ("12b.1", "causal", "the plain causal mask", " | source", ""),
    ("12b.1", "all visible", "Everything is visible", "| source  #", "| True  #"),
    ("12b.1", "rows", "The source sees the target", "| source  #", "| source[:, None]  #"),
    ("12b.1", "transposed", "The mask is transposed", MASK, "(past | source).T  #"),
    (
        "12b.1",
        "two texts apart",
        "nothing could be translated",
        MASK,
        "(past | source) & (source == source[:, None])  #",
    ),
    ("12b.1", "one too many", "One token too many", "< S", "<= S"),
    ("12b.1", "inverted", "what it should show", MASK, "~(past | source)  #"),
    ("12b.1", "numbers", "expected torch.bool", MASK, "(past | source).float()  #"),
    ("12b.2", "worst first", "The worst comes first", ", reverse=True", ""),
    ("12b.2", "padding counted", "The length makes no difference", "ids.index(END)", "len(ids)"),
    ("12b.2", "multiplied", "you multiply", "log_p / (", "log_p * ("),
    ("12b.2", "plain power", "of the length itself", LENGTH, "ids.index(END) ** alpha"),
    ("12b.2", "start counted", "You count <start>", "5 + ids", "6 + ids"),
    ("12b.2", "no end", "count it", "5 + ids", "4 + ids"),
    ("12b.2", "only the best", "the same pairs", "return sorted(found", "return sorted(found[:1]"),
    ("12b.3", "all compared", "You find a leak in", "[:, : t + 1], logits[:, : t + 1]", ", logits"),
    ("12b.3", "never", "depend on the next letter", "return True", "return False"),
    (
        "12b.3",
        "the next letter alone",
        "further back than by one place",
        CHANGE,
        "changed[:, t + 1] = (idx[:, t + 1] + 1)",
        "[:, : t + 1], logits[:, : t + 1]",
        "[:, t], logits[:, t]",
    ),
    (
        "12b.3",
        "one row",
        "Look at every row",
        "[:, : t + 1], logits[:, : t + 1]",
        "[0, : t + 1], logits[0, : t + 1]",
    ),
    ("12b.3", "last letter", "not the last or the next alone", CHANGE, "changed[:, -1] = (idx[:, -1] + 1)"),
    ("12b.3", "in place", "changes its argument in place", "idx.clone()", "idx"),
    ("12b.3", "a tensor", "Expected True or False", "return False", "return logits"),
    ("12b.4", "free", "would write freely", TOKENS, "tokens = list(range(9))"),
    (
        "12b.4",
        "by letters",
        "*whole* beginning",
        POSSIBLE,
        "[each for each in allowed if len(each) > len(text)]",
    ),
    (
        "12b.4",
        "likeliest text",
        "the likeliest of all allowed texts",
        "    text = []\n",
        "    def log_p(text):\n"
        "        steps = model(src, torch.tensor([[START, *text]]))[0].log_softmax(dim=-1)\n"
        "        return steps[range(len(text)), text].sum()\n\n"
        "    return max(allowed, key=log_p)\n",
    ),
    (
        "12b.4",
        "end goes last",
        "<end> is one token among others",
        TOKENS,
        TOKENS.replace("possible}", "possible}, reverse=True")
        + "[: -1 if END in {e[len(text)] for e in possible} and len(possible) > 1 else None]",
    ),
    ("12b.4", "start left in", "Leave <start> out", "return text", "return [START, *text]"),
    ("12b.4", "end left out", "has to end with <end>", "return text", "return text[:-1]"),
    (
        "12b.3",
        "the first place alone",
        "not at the first ones alone",
        "range(idx.shape[1] - 1)",
        "range(1)",
    ),
)
