"""How this package runs as a program: its name, its output and Ctrl-C."""

import contextlib
import importlib
import importlib.util
import io
import logging
import os
import pathlib
import re
import signal
import sys
import tempfile
import threading

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


def name():
    """Returns the command as it was typed, for help and messages."""
    is_script = pathlib.Path(sys.argv[0]).stem == "keras_mixer"
    return "keras_mixer" if is_script else "python -m keras_mixer"


def start_keras(*, tensorflow=False):
    """Imports Keras, and registers the layers so that models can be loaded.

    Args:
        tensorflow: Boolean, whether the command uses TensorFlow on all
            backends. It is imported here to hide what it prints.
    """
    with quiet_tensorflow():
        importlib.import_module("keras_mixer.api")
        # If it is not installed, the command says how to install it.
        if tensorflow and importlib.util.find_spec("tensorflow"):
            importlib.import_module("tensorflow")


@contextlib.contextmanager
def shown_log(*, quiet):
    """Prints what the package logs to the standard error.

    Nothing is changed if the caller of `main` shows logs already.

    Args:
        quiet: Boolean, whether to print only warnings.
    """
    logger = logging.getLogger("keras_mixer")
    if logger.hasHandlers():
        yield
        return
    handler = logging.StreamHandler()
    usual = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    # TensorFlow's import adds a handler for all loggers.
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = usual


class _Pipe(io.FileIO):
    """Output that is thrown away when its reader has gone, such as `head`."""

    def write(self, text):
        try:
            return super().write(text)
        except BrokenPipeError:
            return len(text)


def open_pipes():
    """Lets a command finish, and write its files, if nobody reads its output.

    Without this, `BrokenPipeError` would end it.
    """
    for name in ("stdout", "stderr"):
        usual = getattr(sys, name)
        # Notebooks and tests replace the streams. `None`: there is none.
        is_usual = usual is not None and usual is getattr(sys, f"__{name}__")
        if not is_usual or usual.isatty():
            continue
        usual.flush()
        pipe = _Pipe(usual.fileno(), "w", closefd=False)
        # PYTHONUNBUFFERED asks for no buffer, which a crash would lose.
        stream = io.TextIOWrapper(
            pipe if usual.write_through else io.BufferedWriter(pipe),
            encoding=usual.encoding,
            errors=usual.errors,
            line_buffering=usual.line_buffering,
            write_through=usual.write_through,
        )
        setattr(sys, name, stream)


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
