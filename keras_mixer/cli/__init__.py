"""The command line: parses the arguments and runs a command.

`parsing` says how a command is written.
"""

import argparse
import signal
import sys

from keras_mixer import program
from keras_mixer.cli import evaluate
from keras_mixer.cli import export
from keras_mixer.cli import files
from keras_mixer.cli import look
from keras_mixer.cli import predict
from keras_mixer.cli import push
from keras_mixer.cli import train
from keras_mixer.cli.parsing import parser_of

COMMANDS = (
    *train.COMMANDS,
    evaluate.COMMAND,
    predict.COMMAND,
    look.COMMAND,
    export.COMMAND,
    push.COMMAND,
    *files.COMMANDS,
)


def main(arguments=None):
    """Runs a command: `python -m keras_mixer --help` lists them.

    Args:
        arguments: List of strings; by default `sys.argv[1:]`.
    """
    values = argparse.Namespace()
    try:
        parser_of(COMMANDS).parse_args(arguments, values)
        given = values.command.parsed(values)
        with program.remembering_interrupts():
            values.command.run(given)
    except (
        FloatingPointError,
        ImportError,
        OSError,
        TypeError,
        ValueError,
    ) as error:
        notes = getattr(error, "__notes__", [])
        sys.exit("\n".join([f"keras_mixer: {error}", *notes]))
    except KeyboardInterrupt:
        # A second Ctrl-C must not print a traceback while Python exits.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print(f"keras_mixer: {values.command.stopped(values)}", file=sys.stderr)
        sys.exit(130)  # as shells do for Ctrl-C
