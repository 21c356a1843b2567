"""The exercises' checks: `check("03.2", answer)` says what is wrong with an answer.

A module for each chapter, named as the chapter's own, holds its checks; `checking` runs them, `asking` is
what they are written with.
"""

from ..progress import progress_table
from .checking import check
from .guesses import guess

__all__ = ["check", "guess", "progress_table"]
