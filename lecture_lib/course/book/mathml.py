"""Formulas as MathML, which browsers draw themselves: no script, no font, no network."""

import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

FUNCTION = re.compile(
    r"(\\(?:ln|log|exp|tanh)) *(?=\w|\\(?!left|lVert))"
)  # with what follows not in parentheses


def mathml(formula: str, display: str = "inline") -> str:
    """TeX as MathML, with the space between `ln` and its argument that TeX would leave."""
    return convert(FUNCTION.sub(r"\1\\,", formula), display=display)


def inline(writer: HTML5Translator, node: nodes.math) -> None:
    """Write a formula within a line of text."""
    writer.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def display(writer: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula that has a line to itself; one that is too wide scrolls on its own."""
    formula = mathml(node.astext(), display="block")
    writer.body.append(f'<div class="formula" tabindex="0">{formula}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer; docs/conf.py chooses it by its name, mathml."""
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
