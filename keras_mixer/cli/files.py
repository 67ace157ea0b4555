"""The commands for weight files: list, download, convert and verify."""

from keras_mixer.cli.parsing import OldCommand
from keras_mixer.cli.starting import implementation
from keras_mixer.weights import catalog


def weights_arguments(parser):
    parser.add_argument(
        "pattern",
        nargs="?",
        default="*",
        help="pattern of the names to list, such as 'mixer_*' (default: all)",
    )


def weights(args):
    print(table(_matching(args.pattern)), end="")


def prefetch_arguments(parser):
    parser.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="name of weights, or a pattern of names",
    )


def prefetch(args):
    # Check all names before the first download.
    records = [r for name in args.names for r in _matching(name)]
    loading = implementation("convert").loading
    for record in records:
        print(f"{record.name}: {loading.fetch(record)}")


def _matching(pattern):
    records = catalog.list_weights(pattern)
    if not records:
        known = ", ".join(record.name for record in catalog.RECORDS)
        raise ValueError(
            f"There are no published weights '{pattern}'. Use one of: {known}"
        )
    return records


ANY_FILE = "weight file of any format that `weights=` accepts"


def convert_arguments(parser):
    parser.add_argument("source", metavar="IN", help=ANY_FILE)
    parser.add_argument(
        "target",
        metavar="OUT",
        help="file to write: .npz (Flax), .safetensors (timm), .weights.h5 or "
        ".keras",
    )


def convert(args):
    rows, columns = implementation("convert").convert(args.source, args.target)
    print(f"{args.target}: for {rows} x {columns} tokens")


def verify_arguments(parser):
    parser.add_argument("file", metavar="FILE", help=ANY_FILE)


def verify(args):
    described = implementation("convert").inspect_file(args.file)
    for what, text in described.items():
        print(f"{what}: {text}")


HEADER = """\
| name | top-1 [%] | classes | MB | trained on |
|---|---:|---:|---:|---|
"""


def table(records):
    """Returns a Markdown table of records."""
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


COMMANDS = (
    OldCommand(
        weights_arguments,
        weights,
        "List the published weights. The list has their accuracy and their "
        "size in MB (1,000,000 bytes).",
        "'mixer_b16.*'",
    ),
    OldCommand(
        prefetch_arguments,
        prefetch,
        "Download weights to the cache. They can then be used without a "
        "network.",
        "mixer_b16.imagenet",
    ),
    OldCommand(
        convert_arguments,
        convert,
        "Convert a weight file. An existing file of that name is replaced.",
        "mixer.npz mixer.keras",
    ),
    OldCommand(
        verify_arguments,
        verify,
        "Describe and check a weight file. The whole file is read.",
        "mixer.npz",
    ),
)
