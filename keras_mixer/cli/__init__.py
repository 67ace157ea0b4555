"""The command line: parses the arguments and runs a command.

`parsing` says how a command is written.
"""

import signal
import sys

from keras_mixer.cli import evaluate
from keras_mixer.cli import export
from keras_mixer.cli import files
from keras_mixer.cli import look
from keras_mixer.cli import predict
from keras_mixer.cli import program
from keras_mixer.cli import push
from keras_mixer.cli import train
from keras_mixer.cli.parsing import parser_of
from keras_mixer.optional import MissingLibraryError

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
    program.open_pipes()
    given = None
    try:
        values = parser_of(COMMANDS).parse_args(arguments)
        given = values.command.parsed(values)
        with (
            program.shown_log(quiet=getattr(given, "quiet", False)),
            program.remembering_interrupts(),
        ):
            values.command.run(given)
    # Any other error is a fault of a program, this one or a function of the
    # user: it keeps its traceback.
    except (
        FloatingPointError,
        MissingLibraryError,
        OSError,
        ValueError,
    ) as error:
        notes = getattr(error, "__notes__", [])
        sys.exit("\n".join([f"keras_mixer: {error}", *notes]))
    except KeyboardInterrupt:
        # A second Ctrl-C must not print a traceback while Python exits.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        stopped = "stopped."
        if given is not None:
            stopped = values.command.stopped(given)
        print(f"keras_mixer: {stopped}", file=sys.stderr)
        sys.exit(130)  # as shells do for Ctrl-C
