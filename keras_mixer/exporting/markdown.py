"""Parts of Markdown."""

import re


def escaped(text):
    """Returns text of unknown origin for one line of Markdown."""
    text = "".join(c if c.isprintable() else " " for c in str(text))
    return re.sub(r"([\\`*_{}\[\]<>|~$&])", r"\\\1", text).strip()


def table(header, rows):
    """Returns the lines of a table.

    Args:
        header: The cells of the first line.
        rows: Tuples of as many cells. Rows whose last cell is `None` are left
            out.
    """
    rows = [row for row in rows if row[-1] is not None]
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines]


def code(text, language="python"):
    """Returns the lines of a block of code."""
    return [f"```{language}", *text.strip().splitlines(), "```"]
