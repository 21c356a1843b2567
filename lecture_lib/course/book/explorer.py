"""The explorer: the small model in the page, in plain JavaScript, as a page of the book and as one file."""

import base64
import json
from pathlib import Path

from lecture_lib.base.files import write_text
from lecture_lib.base.paths import ROOT, SHIPPED

SOURCES = ROOT / "docs" / "explorer"
ALONE = "explorer-alone.html"
SCRIPTS = ("gpt.js", "page.js")
TITLE = "A GPT in the page"
SHELL = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; background: Canvas; color: CanvasText; }}
main {{ max-width: 48rem; margin: 0 auto; padding: 0 1rem; }}
{style}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
{intro}
{body}
</main>
<script>{script}</script>
</body>
</html>
"""
INTRO = """<p>The small model of the course <em>Let's build GPT, executable</em>: chapter 11's GPT, trained on
tiny Shakespeare, computed in this page by plain JavaScript. Nothing is sent anywhere.</p>"""


def model_script() -> str:
    """The small model as a line of JavaScript: its card, and its weights in base64."""
    checkpoint = SHIPPED["small"]
    card = json.loads(checkpoint.with_suffix(".json").read_text(encoding="utf-8"))
    needed = {key: card[key] for key in ("model", "characters")}
    weights = base64.b64encode(checkpoint.with_suffix(".safetensors").read_bytes()).decode("ascii")
    return f"const MODEL = {json.dumps({'card': needed, 'weights': weights})};\n"


def source(name: str) -> str:
    """One of the explorer's own files."""
    return (SOURCES / name).read_text(encoding="utf-8")


def alone() -> str:
    """The explorer as a single file of HTML, model included."""
    script = model_script() + "".join(map(source, SCRIPTS))
    return SHELL.format(
        title=TITLE, intro=INTRO, style=source("style.css"), body=source("body.html"), script=script
    )


def in_page() -> str:
    """The explorer as raw HTML within a page of the book, whose files `write_files` writes beside it."""
    scripts = "".join(f'<script src="explorer/{name}"></script>\n' for name in ("model.js", *SCRIPTS))
    style = '<link rel="stylesheet" href="explorer/style.css">\n'
    return f"{style}{source('body.html')}{scripts}"


def write_files(book: Path) -> None:
    """Write what the explorer's page loads, and the single file, into the folder of the book."""
    for name in ("style.css", *SCRIPTS):
        write_text(book / "explorer" / name, source(name))
    write_text(book / "explorer" / "model.js", model_script())
    write_text(book / ALONE, alone())
