"""The commands for weight files: list, download, convert and verify."""

import dataclasses

from keras_mixer.cli.parsing import Arguments
from keras_mixer.cli.parsing import Command
from keras_mixer.cli.parsing import option
from keras_mixer.cli.parsing import positional
from keras_mixer.cli.program import start_keras
from keras_mixer.weights import catalog

ANY_FILE = "weight file of any format that `weights=` accepts"


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsArguments(Arguments):
    """The arguments of `weights`."""

    pattern: str = positional(
        "PATTERN",
        "pattern of the names to list, such as 'mixer_*' (default: all)",
        nargs="?",
    )


def weights(arguments):
    """Prints a table of published weights."""
    print(table(_matching(arguments.pattern or "*")), end="")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrefetchArguments(Arguments):
    """The arguments of `prefetch`."""

    names: tuple = positional(
        "NAME", "name of weights, or a pattern of names", nargs="+"
    )


def prefetch(arguments):
    """Downloads published weights, and prints where they are."""
    # Check all names before the first download.
    records = [r for name in arguments.names for r in _matching(name)]
    start_keras()
    from keras_mixer.weights import loading

    for record in records:
        print(f"{record.name}: {loading.fetch_record(record)}")


def _matching(pattern):
    records = catalog.list_weights(pattern)
    if not records:
        known = ", ".join(record.name for record in catalog.RECORDS)
        raise ValueError(
            f"There are no published weights '{pattern}'. Use one of: {known}"
        )
    return records


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertArguments(Arguments):
    """The arguments of `convert`."""

    source: str = positional("IN", ANY_FILE, is_path=True)
    target: str = positional(
        "OUT",
        "file to write: .npz (Flax), .safetensors (timm), .weights.h5 or "
        ".keras",
        is_path=True,
    )
    overwrite: bool = option(
        False, "replace an existing OUT", action="store_true"
    )


def convert(arguments):
    """Converts a weight file, and prints its grid of tokens."""
    start_keras()
    from keras_mixer.cli import converting

    rows, columns = converting.convert(
        arguments.source, arguments.target, arguments.overwrite
    )
    print(f"{arguments.target}: for {rows} x {columns} tokens")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifyArguments(Arguments):
    """The arguments of `verify`."""

    file: str = positional("FILE", ANY_FILE, is_path=True)


def verify(arguments):
    """Prints a description of a weight file."""
    start_keras()
    from keras_mixer.cli import converting

    for what, text in converting.inspect_file(arguments.file).items():
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
    Command(
        "weights",
        WeightsArguments,
        weights,
        "List the published weights. The list has their accuracy and their "
        "size in MB (1,000,000 bytes).",
        "'mixer_b16.*'",
    ),
    Command(
        "prefetch",
        PrefetchArguments,
        prefetch,
        "Download weights to the cache. They can then be used without a "
        "network.",
        "mixer_b16.imagenet",
    ),
    Command(
        "convert",
        ConvertArguments,
        convert,
        "Convert a weight file to another format.",
        "mixer.npz mixer.keras",
    ),
    Command(
        "verify",
        VerifyArguments,
        verify,
        "Describe and check a weight file. The whole file is read.",
        "mixer.npz",
    ),
)
