"""A chapter's parameters: refused in a sentence if out of range, and known if they are the stored ones."""

from collections.abc import Mapping

from lecture_lib.base.errors import CourseError
from lecture_lib.base.paths import NOTEBOOKS

from .chapters import Chapter

Range = tuple[float, float]
RANGES: dict[str, Range] = {  # least and most of the parameters that several chapters share, both included
    "batch_size": (1, 1024),
    "block_size": (1, 1024),
    "n_embd": (1, 1024),
    "n_head": (1, 64),
    "n_layer": (1, 48),
    "dropout": (0, 0.9),
    "max_iters": (1, 1_000_000),
    "eval_interval": (1, 1_000_000),
    "eval_iters": (1, 10_000),
    "learning_rate": (1e-7, 1),
    "seed": (0, 2**63 - 1),  # what torch's generator takes, without its negative alias
}


def check_settings(stem: str, settings: Mapping, **ranges: Range) -> bool:
    """Whether all parameters of chapter `stem` have their stored values.

    `settings` holds them, among others: a notebook's `globals()` will do. `ranges` gives (least, most) of the
    parameters that are the chapter's own, or of a shared one where it has other limits here.
    CourseError names a value outside its range, and the range; and a number of heads that doesn't divide the
    channels.
    """
    defaults = Chapter(NOTEBOOKS / f"{stem}.ipynb").defaults
    limits = {**RANGES, **ranges}
    for name, default in defaults.items():
        if isinstance(default, int | float) and not isinstance(default, bool):
            check_range(name, settings[name], *limits[name])
    if "n_head" in defaults and settings["n_embd"] % settings["n_head"]:
        divisors = [str(n) for n in range(1, settings["n_embd"] + 1) if settings["n_embd"] % n == 0]
        wrong = f"n_head={settings['n_head']} doesn't divide n_embd={settings['n_embd']}"
        raise CourseError(f"{wrong}; expected one of: {', '.join(divisors)}")
    return all(settings[name] == default for name, default in defaults.items())


def check_range(name: str, value: float, least: float, most: float) -> None:
    """CourseError unless least <= value <= most; nan is out of range, too."""
    if not least <= value <= most:
        raise CourseError(f"{name}={value:,}: expected a value from {least:,} to {most:,}")
