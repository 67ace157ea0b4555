"""Prints the size of the project against its bounds.

`python tests/support/sizes.py`, which `nox -s sizes` runs, fails if a bound is
exceeded. A feature that needs more room makes it by deleting.
"""

import ast
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]

# For a folder: the most lines and the most files.
BOUNDS = {
    "keras_mixer": (16_000, 100),
    "tests": (16_000, 100),
    "benchmarks": (1_500, 20),
}
# The most lines of a file, and of a function without its docstring.
FILE, FUNCTION = 350, 50


def python_files():
    """Yields `(path, lines, syntax tree)` of each Python file in Git."""
    names = subprocess.run(
        ["git", "ls-files", "*.py"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    for name in names.stdout.split():
        path = ROOT / name
        if path.exists():
            text = path.read_text("utf-8")
            yield pathlib.Path(name), text.count("\n"), ast.parse(text)


def docstring_lines(node):
    """The number of lines of the docstring of a module, class or function."""
    if ast.get_docstring(node) is None:
        return 0
    docstring = node.body[0]
    return docstring.end_lineno - docstring.lineno + 1


def functions(tree):
    """Yields the name and the lines of each function, without docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            lines = node.end_lineno - node.lineno + 1
            yield node.name, lines - docstring_lines(node)


def main():
    files = list(python_files())
    exceeded = 0

    def report(name, size, bound, always=False):
        nonlocal exceeded
        exceeded += size > bound
        if always or size > bound:
            mark = "  too large" if size > bound else ""
            print(f"{name:60} {size:>7,} of {bound:>7,}{mark}")

    for folder, (most_lines, most_files) in BOUNDS.items():
        sizes = [lines for path, lines, _ in files if path.parts[0] == folder]
        report(f"{folder}, lines", sum(sizes), most_lines, always=True)
        report(f"{folder}, files", len(sizes), most_files, always=True)
    for path, lines, tree in files:
        report(str(path), lines, FILE)
        for name, size in functions(tree):
            report(f"{path}: {name}", size, FUNCTION)
    sys.exit(exceeded > 0)


if __name__ == "__main__":
    main()
