"""Tables as text and as CSV files, for names with any characters."""

import csv


def printable(text):
    """Returns a text in one line that can be printed and encoded.

    The names of files and folders can have line breaks, other control
    characters, and bytes that are not text. These are written as `\\n`, `\\x1b`
    or `\\udcff`.

    Example:

    >>> from keras_mixer.cli.tables import printable
    >>> print(printable("two\\nlines"))
    two\\nlines
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in text
    )


def open_text(path):
    """Opens a text file to write. Bytes that are not text become `\\udcff`."""
    return path.open(
        "w", newline="", encoding="utf-8", errors="backslashreplace"
    )


def write_csv(path, rows):
    """Writes a CSV file of rows of cells."""
    with open_text(path) as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
