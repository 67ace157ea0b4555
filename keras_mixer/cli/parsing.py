"""The parser of the command line and its help."""

import argparse

from keras_mixer import program
from keras_mixer.cli import files
from keras_mixer.cli import models
from keras_mixer.cli import trainings
from keras_mixer.commands.texts import TEXTS

COMMANDS = (
    (trainings.finetune_arguments, trainings.finetune),
    (trainings.train_arguments, trainings.train),
    (models.evaluate_arguments, models.evaluate),
    (models.predict_arguments, models.predict),
    (models.look_arguments, models.look),
    (models.export_arguments, models.export),
    (models.push_arguments, models.push),
    (files.weights_arguments, files.weights),
    (files.prefetch_arguments, files.prefetch),
    (files.convert_arguments, files.convert),
    (files.verify_arguments, files.verify),
)


def parser():
    """Returns the parser. It sets `command` to the function to call."""
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
    for arguments, command in COMMANDS:
        name = command.__name__
        text, example = TEXTS[name]
        added = subparsers.add_parser(
            name,
            help=text[0].lower() + text.partition(".")[0][1:],
            description=text,
            epilog=f"example:\n  {program.name()} {name} {example}",
            formatter_class=_Formatter,
        )
        added.set_defaults(command=command)
        arguments(added)
    return top


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the example. Fills those of the description."""

    def _fill_text(self, text, width, indent):
        if text.startswith("example:"):
            return super()._fill_text(text, width, indent)
        return argparse.HelpFormatter._fill_text(self, text, width, indent)
