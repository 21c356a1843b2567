"""Predict, then run: a guess that is written down first, beside what came out."""

from numbers import Real

from .asking import plain_number


def guess(said: object, found: float | str, digits: int = 2) -> None:
    """Print what was guessed before a cell was run, and what was found; `...` is no guess.

    Numbers are shown with so many digits after the point. There is no score.
    """
    shown = f"{found:,.{digits}f}" if isinstance(found, Real) else str(found)
    if said is ...:
        print(f"no guess; it is {shown}")
    elif isinstance(found, Real) and isinstance(plain_number(said), Real):
        apart = round(plain_number(said) - found, digits)
        verdict = f"{abs(apart):,.{digits}f} too {'high' if apart > 0 else 'low'}" if apart else "just so"
        print(f"you guessed {said}; it is {shown}: {verdict}")
    else:
        print(f"you guessed {said}; it is {shown}")
