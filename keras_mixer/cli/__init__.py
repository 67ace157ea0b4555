"""The command line: parses the arguments and prints the results.

The help and wrong arguments are shown without importing Keras, which takes
seconds. So the code of a command is imported when it runs, by `implementation`.
"""

import argparse
import signal
import sys

from keras_mixer import program
from keras_mixer.cli.parsing import parser
from keras_mixer.cli.trainings import stopped


def main(arguments=None):
    """Runs a command: `python -m keras_mixer --help` lists them.

    Args:
        arguments: List of strings; by default `sys.argv[1:]`.
    """
    args = argparse.Namespace()
    try:
        parser().parse_args(arguments, args)
        with program.remembering_interrupts():
            args.command(args)
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
        print(f"keras_mixer: {stopped(args)}", file=sys.stderr)
        sys.exit(130)  # as shells do for Ctrl-C
