"""Checks of the exercises of 18_pretraining."""

from collections import Counter
from collections.abc import Callable

import torch

from lecture_lib.nanogpt import NanoGPT, NanoGPTConfig

from .asking import Wrong, ask, expect
from .checking import exercise

SMALL = NanoGPTConfig(vocab_size=11, block_size=4, n_embd=8, n_head=2, n_layer=3)


@exercise("18.1", Callable, "a function of text and alphabet that gives a dict of characters")
def unknown(answer: Callable) -> str:
    for text, alphabet in (
        ("caf\u00e9 \u2014 caf\u00e9s", "acefs "),
        ("abc", "abc"),
        ("aab", ""),
        ("Hi, hi!", "hi"),
    ):
        expected = Counter(character for character in text if character not in alphabet)
        found = ask(answer, text, alphabet)
        if not isinstance(found, dict):
            raise Wrong(f"Expected a dict, got {type(found).__name__}.")
        case = f"For {text!r} and the alphabet {alphabet!r}"
        if found == Counter(text) and expected != found:
            raise Wrong(f"{case}: known characters are in your dict, too; leave them out.")
        if set(found) == set(expected) and found != expected and set(found.values()) == {1}:
            raise Wrong(f"{case}: you count each character once, however often it occurs.")
        if {character: count for character, count in found.items() if count} == expected != found:
            raise Wrong(
                f"{case}: characters that don't occur, or are known, are in your dict with a count of 0."
            )
        if found != expected:
            raise Wrong(f"{case} expected {dict(expected)}, got {dict(found)}.")
    return (
        "In the other plays that makes 64 long dashes and 22 quotation marks, all in Edward III, and ten digits in "
        "Henry VIII. Look at what is unknown before you decide what becomes of it."
    )


def covered(a: str, b: str, n: int) -> float:
    """The share of b's characters in passages of n that a has, too."""
    known = {a[i : i + n] for i in range(len(a) - n + 1)}
    inside = {i + k for i in range(len(b) - n + 1) if b[i : i + n] in known for k in range(n)}
    return len(inside) / len(b)


@exercise("18.2", Callable, "a function of a, b and n that gives a share")
def coverage(answer: Callable) -> str:
    cases = (
        ("to be or not to be", "not to be or not", 6),
        ("abcabc", "xxabcabcxx", 3),
        ("the rest is silence", "he rested in silence", 5),
        ("abc", "xyz", 2),
    )
    for a, b, n in cases:
        known = {a[i : i + n] for i in range(len(a) - n + 1)}
        begins = [i for i in range(len(b) - n + 1) if b[i : i + n] in known]
        slips = {
            "You count the places where passages begin; each of them covers n characters.": len(begins)
            / len(b),
            "Passages overlap: a character that lies in several counts once.": n * len(begins) / len(b),
            "You divide by the number of places where a passage can begin; divide by all characters of b.": (
                covered(a, b, n) * len(b) / (len(b) - n + 1)
            ),
            "That's the share of a's characters; b is asked about.": covered(b, a, n),
        }
        expect(ask(answer, a, b, n), covered(a, b, n), f"For {a!r}, {b!r} and n={n}", slips, atol=1e-9)
    return (
        "A share is hard to fake by accident: one song makes the longest passage long, but covers next to nothing. "
        "Two editions of one scene cover most of it."
    )


def network() -> NanoGPT:
    """A small network, all of whose parameters are trained."""
    return NanoGPT(SMALL)


@exercise("18.3", Callable, "a function of a NanoGPT and n that gives a number of parameters")
def frozen(answer: Callable) -> str:
    for n in (0, 1, 3):
        model = NanoGPT(SMALL)
        count = answer(model, n)
        check_frozen(model, n)
        everything = sum(p.numel() for p in model.parameters())
        trained = [p.numel() for p in model.parameters() if p.requires_grad]
        slips = {
            "That's the number of all parameters; count those that are still trained.": everything,
            "That's the number of frozen parameters; count the others.": everything - sum(trained),
            "That's the number of tensors; count their elements.": len(trained),
        }
        expect(count, sum(trained), f"With n={n}", slips)
    return (
        "What is frozen can't forget, and needs no gradient: fine-tuning gets cheaper, in time and in memory. But it "
        "can't adapt, either."
    )


def check_frozen(model: NanoGPT, n: int) -> None:
    """Wrong if another part of the network is frozen than the tables and the first n blocks."""
    tables = {"token_embedding_table": 0, "position_embedding_table": 0}
    parts = {
        **tables,
        **{f"body.blocks.{i}": i + 1 for i in range(SMALL.n_layer)},
        "body.ln": SMALL.n_layer + 1,
    }
    for name, depth in parts.items():
        learns = [p.requires_grad for p in model.get_submodule(name).parameters()]
        if depth <= n and any(learns):
            raise Wrong(f"With n={n}, {name} is still trained; freeze it.")
        if depth > n and not all(learns):
            raise Wrong(f"With n={n}, {name} is frozen; it has to go on learning.")


@exercise("18.4", Callable, "a function of a NanoGPT, rate and factor that gives a list of dicts")
def by_depth(answer: Callable) -> str:
    for rate, factor in ((0.01, 0.5), (0.002, 0.1)):
        model = NanoGPT(SMALL)
        rates = rates_by_name(answer(model, rate, factor), model)
        first, last = (rates[f"body.blocks.{i}.sa.proj.weight"] for i in (0, SMALL.n_layer - 1))
        if first == last:
            raise Wrong("The first block has the same rate as the last; it lies lower, so its rate is lower.")
        if first > last:
            raise Wrong("That's upside down: the lower a layer, the lower its rate.")
        for name, found in rates.items():
            below = depth_below(name)
            tables = "The tables lie below the first block: they get one more factor than it has."
            slips = {tables: rate * factor ** (below - 1)} if "embedding" in name else {}
            what = f"For {name}, rate={rate}, factor={factor}"
            expect(found, rate * factor**below, what, slips, atol=1e-12)
    return (
        "With a factor of 1 this is ordinary fine-tuning; with a factor of 0 all but the last block and norm stand still. "
        "Between the two you choose how much to keep and how much to adapt."
    )


def rates_by_name(groups: object, model: NanoGPT) -> dict[str, float]:
    """The rate of each parameter; Wrong unless these are groups that hold each of them once."""
    names, rates = {id(p): name for name, p in model.named_parameters()}, {}
    if not isinstance(groups, list) or not all(
        isinstance(g, dict) and {"params", "lr"} <= set(g) for g in groups
    ):
        raise Wrong("Expected a list of dicts, each with `params` and `lr`.")
    for group in groups:
        params = group["params"]
        for p in [params] if isinstance(params, torch.Tensor) else params:
            if id(p) not in names:
                raise Wrong("A group holds something that isn't a parameter of the model.")
            if names[id(p)] in rates:
                raise Wrong(f"{names[id(p)]} is in the groups twice; an optimizer refuses that.")
            rates[names[id(p)]] = group["lr"]
    for name in names.values():
        if name not in rates:
            raise Wrong(f"{name} is in no group, so it wouldn't learn at all.")
    return rates


def depth_below(name: str) -> int:
    """How many blocks below the last one a parameter of the small network is."""
    if "blocks." in name:
        return SMALL.n_layer - 1 - int(name.split("blocks.")[1].split(".")[0])
    return SMALL.n_layer if "embedding" in name else 0
