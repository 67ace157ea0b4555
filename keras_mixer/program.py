"""How this package runs as a program: its name, and what it prints."""

import contextlib
import os
import pathlib
import re
import signal
import sys
import tempfile
import threading

COMMAND = "keras_mixer"

MODULE = "python -m keras_mixer"


# The least severity of the messages that TensorFlow's C++ code prints: 3 for
# fatal errors only. Other errors raise exceptions too.
LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"

_LOGGED = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog|"
    rb"[IWE]\d{4} \d\d:\d\d:|"
    rb"\d{4}-\d\d-\d\d \d\d:\d\d:[\d.]+: [IWE] |"
    rb"To enable the following instructions: "
)


# Set by Ctrl-C, within `remembering_interrupts`.
interrupted = threading.Event()


def is_program():
    """Whether this process runs the command line, not a script or a notebook.

    Only useful while the package is being imported. While Python looks for the
    module of `python -m MODULE`, `sys.argv[0]` is `"-m"` (documentation of
    Python, "Command line and environment"). The module is then checked too: the
    package of another program can import this one at that time.
    """
    arguments = getattr(sys, "argv", None) or [""]
    if arguments[0] == "-m":
        module = sys.orig_argv[-len(arguments)]
        pattern = rf"(-\w*m)?{__package__}(\.__main__)?"
        return re.fullmatch(pattern, module) is not None
    return pathlib.Path(arguments[0]).stem == COMMAND


def name():
    """Returns the command as it was typed, for help and messages."""
    if pathlib.Path(sys.argv[0]).stem == COMMAND:
        return COMMAND
    return MODULE


@contextlib.contextmanager
def quiet_tensorflow():
    """Hides what TensorFlow prints about its start, as a context manager.

    While TensorFlow 2.21 is imported, it prints lines about oneDNN and CUDA
    for every user. `TF_CPP_MIN_LOG_LEVEL` applies only after the import, so
    these lines are removed from the standard error here. All other text is
    passed on. If the user has set the variable to 0, nothing is hidden.
    """
    if os.environ.setdefault(LOG_LEVEL, "3") == "0":
        yield
        return
    sys.stderr.flush()
    errors = os.dup(2)
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(errors, 2)
            os.close(errors)
            printed.seek(0)
            for line in printed:
                if not _LOGGED.match(line):
                    os.write(2, line)


@contextlib.contextmanager
def remembering_interrupts():
    """Sets `interrupted` when Ctrl-C raises `KeyboardInterrupt`.

    The exception can be raised in a function whose exceptions Python ignores
    and prints, such as JAX's callback of the garbage collector. It is not
    printed here.
    """
    interrupted.clear()
    usual = signal.getsignal(signal.SIGINT)
    in_main_thread = threading.current_thread() is threading.main_thread()
    # Processes that a shell has started in the background ignore Ctrl-C.
    if usual is not signal.default_int_handler or not in_main_thread:
        yield
        return

    def handler(number, frame):
        interrupted.set()
        signal.default_int_handler(number, frame)

    def print_unraisable(error):
        if error.exc_type is not KeyboardInterrupt:
            usual_print(error)

    usual_print = sys.unraisablehook
    sys.unraisablehook = print_unraisable
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        sys.unraisablehook = usual_print
