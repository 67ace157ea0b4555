"""The frame of the command line: commands, their arguments and the parser.

A command is a file in this folder: a data class, whose fields are the
arguments, a function `run` that takes an instance, and a `Command`. The help
and wrong arguments must be shown without importing Keras, which takes seconds,
so the file imports nothing that imports Keras. `run` imports it.
"""

import argparse
import dataclasses
import os
import typing
from collections.abc import Callable

from keras_mixer.arguments import check_local_path
from keras_mixer.cli import program

REQUIRED = dataclasses.MISSING


def option(default, text, shown=None, *, group=None, is_path=False, **argument):
    """Returns a field of a data class that is an option, such as `--name`.

    Args:
        default: The default value; `REQUIRED` if there is none.
        text: The text for the help, with the unit.
        shown: The default in the help; by default the default value.
        group: Title of the group of the argument in the help.
        is_path: Boolean, whether the value is a path on this machine, or a list
            of paths.
        **argument: Options of `argparse.ArgumentParser.add_argument`.
    """
    if default is REQUIRED:
        argument["required"] = True
    elif shown is None and default is not None and default is not False:
        shown = default
    metadata = {"text": text, "shown": shown, "group": group}
    metadata |= {"is_path": is_path, "argument": argument}
    return dataclasses.field(default=default, metadata=metadata)


def positional(metavar, text, **options):
    """Returns a field of a data class that is a positional argument.

    Args:
        metavar: The argument in the help, such as "PHOTO".
        text: The text for the help.
        **options: As of `option`.
    """
    field = option(REQUIRED, text, metavar=metavar, **options)
    del field.metadata["argument"]["required"]
    return field


def changed(arguments, name, default, shown=None):
    """Returns a field of another data class, with another default."""
    (field,) = (f for f in dataclasses.fields(arguments) if f.name == name)
    usual = field.metadata["shown"] if default is None else default
    metadata = {**field.metadata, "shown": shown or usual}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Base class of the arguments of a command.

    A "~" of a path is expanded: a shell leaves it as it is in `--output=~/x`.

    Raises:
        ValueError: If a path is an address, such as "gs://bucket/file".
    """

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if field.metadata.get("is_path"):
                value = getattr(self, field.name)
                paths = value if isinstance(value, (list, tuple)) else [value]
                for path in paths:
                    check_local_path(field.name, path)
                if isinstance(value, str):
                    value = os.path.expanduser(value)
                    object.__setattr__(self, field.name, value)


class Command(typing.NamedTuple):
    """A command of the command line."""

    name: str
    arguments: type[Arguments]
    run: Callable[[typing.Any], None]
    text: str  # for the help
    example: str  # its arguments
    # Returns what to print after Ctrl-C. It takes the arguments.
    stopped: Callable[[typing.Any], str] = lambda arguments: (
        "stopped. Repeat this command to start it again."
    )

    def add_to(self, parser):
        """Adds the arguments to a parser, in groups."""
        groups = {None: parser}
        for field in dataclasses.fields(self.arguments):
            if not field.metadata:
                continue
            title = field.metadata["group"]
            if title not in groups:
                groups[title] = parser.add_argument_group(title)
            add_argument(groups[title], field)

    def parsed(self, values):
        """Returns the arguments. `values` has the parsed values."""
        return self.arguments(
            **{
                field.name: getattr(values, field.name)
                for field in dataclasses.fields(self.arguments)
                if field.metadata
            }
        )


def add_argument(group, field):
    """Adds the argument that a field describes to a group of a parser."""
    text, argument = field.metadata["text"], field.metadata["argument"]
    if field.metadata["shown"] is not None:
        text = f"{text} (default: {field.metadata['shown']})"
    if field.default is REQUIRED and "required" not in argument:
        group.add_argument(field.name, help=text, **argument)
        return
    name = f"--{field.name.replace('_', '-')}"
    if field.default is not REQUIRED:
        argument = {**argument, "default": field.default}
    group.add_argument(name, help=text, **argument)


def parser_of(commands):
    """Returns the parser of commands. It sets `command` to one of them."""
    top = argparse.ArgumentParser(
        prog=program.name(),
        description="MLP-Mixer and ResMLP for images: published weights, "
        "training on your photos, and classification.",
        epilog=f"`{program.name()} COMMAND --help` shows the arguments of a "
        "command, with an example.",
    )
    subparsers = top.add_subparsers(
        title="commands", required=True, metavar="COMMAND"
    )
    for command in commands:
        text = command.text
        added = subparsers.add_parser(
            command.name,
            help=text[0].lower() + text.partition(".")[0][1:],
            description=text,
            epilog=f"example:\n  {program.name()} {command.name} "
            f"{command.example}",
            formatter_class=_Formatter,
        )
        added.set_defaults(command=command)
        command.add_to(added)
    return top


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the example. Fills those of the description."""

    def _fill_text(self, text, width, indent):
        if text.startswith("example:"):
            return super()._fill_text(text, width, indent)
        return argparse.HelpFormatter._fill_text(self, text, width, indent)
