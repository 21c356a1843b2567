"""Tables of text, for the terminal, for notebooks and for pages."""


def aligned(rows: list[tuple[str, ...]]) -> str:
    """The rows, of which the first is the heading, with columns as wide as their longest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def markdown(rows: list[tuple[str, ...]]) -> str:
    """The rows, of which the first is the heading, as a table in Markdown."""
    heading, *rest = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, ("---",) * len(heading), *rest))
