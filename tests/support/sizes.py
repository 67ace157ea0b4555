"""Prints the size of the project against its bounds.

`python tests/support/sizes.py`, which `nox -s sizes` runs, fails if a bound is
exceeded. A feature that needs more room makes it by deleting.
"""

import ast
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]

# For a folder: the most lines, the most files, and the most lines of a file.
# They are only lowered. The aim is 16,000 lines for the package and for the
# tests, 100 files each, and 350 lines for each file.
BOUNDS = {
    "keras_mixer": (21_700, 126, 350),
    "tests": (20_710, 102, 790),
    "benchmarks": (1_500, 14, 350),
    "examples": (1_000, 7, 350),
}
# The most lines of the body of a function. The signature and the docstring are
# left out: public functions have many arguments, and describe them all.
FUNCTION = 50


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


def bodies(tree):
    """Yields the name and the lines of the body of each function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            has_docstring = ast.get_docstring(node) is not None
            first = node.body[has_docstring:][:1] or node.body
            yield node.name, node.end_lineno - first[0].lineno + 1


def main():
    files = list(python_files())
    exceeded = 0

    def report(name, size, bound, always=False):
        nonlocal exceeded
        exceeded += size > bound
        if always or size > bound:
            mark = "  too large" if size > bound else ""
            print(f"{name:60} {size:>7,} of {bound:>7,}{mark}")

    for folder, (most_lines, most_files, most_in_file) in BOUNDS.items():
        inside = [file for file in files if file[0].parts[0] == folder]
        lines = sum(lines for _, lines, _ in inside)
        report(f"{folder}, lines", lines, most_lines, always=True)
        report(f"{folder}, files", len(inside), most_files, always=True)
        for path, lines, tree in inside:
            report(str(path), lines, most_in_file)
            for name, size in bodies(tree):
                report(f"{path}: {name}", size, FUNCTION)
    sys.exit(exceeded > 0)


if __name__ == "__main__":
    main()
