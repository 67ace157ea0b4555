"""The command line: names of arguments, and printed results."""

import argparse
import sys

from keras_mixer import converting
from keras_mixer.weights import catalog
from keras_mixer.weights import loading


def main(arguments=None):
    """Runs a command: `python -m keras_mixer --help` lists them.

    Args:
        arguments: List of strings, by default those of the process.
    """
    args = _parser().parse_args(arguments)
    try:
        args.command(args)
    except (ImportError, OSError, TypeError, ValueError) as error:
        sys.exit(f"keras_mixer: {error}")


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m keras_mixer",
        description="Weights of MLP-Mixer and ResMLP.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(command, name, text):
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(command=command)
        return added.add_argument

    argument = add(_weights, "weights", "list the published weights")
    argument("pattern", nargs="?", default="*", help="such as 'mixer_*'")
    argument = add(_prefetch, "prefetch", "fetch weights into the cache")
    argument("names", nargs="+", metavar="NAME", help="as listed, or a pattern")
    argument = add(_convert, "convert", "convert a file of weights")
    argument("source", metavar="IN")
    argument(
        "target",
        metavar="OUT",
        help=".npz (Flax), .safetensors (timm), .weights.h5 or .keras",
    )
    argument = add(_verify, "verify", "say what a file is, and if it is whole")
    argument("file", metavar="FILE")
    return parser


def _weights(args):
    print(table(_matching(args.pattern)), end="")


def _prefetch(args):
    # All names are looked up before the first is fetched.
    for record in [r for name in args.names for r in _matching(name)]:
        print(f"{record.name}: {loading.fetch(record)}")


def _matching(pattern):
    records = catalog.list_weights(pattern)
    if not records:
        known = ", ".join(record.name for record in catalog.RECORDS)
        raise ValueError(
            f"There are no published weights '{pattern}'. There are: {known}"
        )
    return records


def _convert(args):
    rows, columns = converting.convert(args.source, args.target)
    print(f"{args.target}: for {rows} x {columns} tokens")


def _verify(args):
    for what, text in converting.inspect_file(args.file).items():
        print(f"{what}: {text}")


HEADER = """\
| name | top-1 [%] | classes | MB | trained on |
|---|---:|---:|---:|---|
"""


def table(records):
    """Records as a table in Markdown."""
    return HEADER + "".join(map(_row, records))


def _row(record):
    cells = (
        f"`{record.name}`",
        record.top1 or "-",
        record.classes or "-",
        round(record.size / 1e6) if record.size else "-",
        record.trained_on,
    )
    return "".join(f"| {cell} " for cell in cells) + "|\n"
