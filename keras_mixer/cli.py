"""The command line: parses the arguments and prints the results.

The help and wrong arguments are shown without importing Keras, which takes
seconds. So a command is imported when it runs, by `_implementation`.
"""

import argparse
import importlib
import importlib.util
import signal
import sys

from keras_mixer import program
from keras_mixer.commands import checks
from keras_mixer.commands import recipe_files
from keras_mixer.commands.names import default_weights
from keras_mixer.commands.settings import Settings
from keras_mixer.commands.settings import add_arguments
from keras_mixer.commands.texts import TEXTS
from keras_mixer.weights import catalog


def main(arguments=None):
    """Runs a command: `python -m keras_mixer --help` lists them.

    Args:
        arguments: List of strings; by default `sys.argv[1:]`.
    """
    args = argparse.Namespace()
    try:
        _parser().parse_args(arguments, args)
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
        print(f"keras_mixer: {_stopped(args)}", file=sys.stderr)
        sys.exit(130)  # as shells do for Ctrl-C


def _stopped(args):
    """Returns the message for a command that the user stopped."""
    if not hasattr(args, "output"):
        return "stopped. Repeat this command to start it again."
    # Not there if Keras was being imported.
    train = sys.modules.get("keras_mixer.commands.train")
    if train is None:
        return "stopped. Repeat this command to start or resume the training."
    epochs = len(train.training.read_log(args.output))
    return f"stopped after {epochs} epochs. Repeat this command to resume it."


def _implementation(command, *, reads_data_sets=False):
    """Imports the module of a command.

    The layers are registered first, so that Keras can load models.

    Args:
        command: Name of the module.
        reads_data_sets: Boolean, whether the command uses TensorFlow on all
            backends. It is imported here to hide what it prints.
    """
    with program.quiet_tensorflow():
        importlib.import_module("keras_mixer.api")
        # If it is not installed, the command says how to install it.
        if reads_data_sets and importlib.util.find_spec("tensorflow"):
            importlib.import_module("tensorflow")
        return importlib.import_module(f"keras_mixer.commands.{command}")


def _parser():
    parser = argparse.ArgumentParser(
        prog=program.name(),
        description="MLP-Mixer and ResMLP for images: published weights, "
        "training on your photos, and classification.",
        epilog=f"`{program.name()} COMMAND --help` shows the arguments of a "
        "command, with an example.",
    )
    subparsers = parser.add_subparsers(
        title="commands", required=True, metavar="COMMAND"
    )
    for arguments, command in COMMANDS:
        name = command.__name__.removeprefix("_")
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
    return parser


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the example. Fills those of the description."""

    def _fill_text(self, text, width, indent):
        if text.startswith("example:"):
            return super()._fill_text(text, width, indent)
        return argparse.HelpFormatter._fill_text(self, text, width, indent)


# The epochs of a training from scratch by default.
EPOCHS = 30


def _train_arguments(parser):
    _training_arguments(parser, epochs=(None, EPOCHS))


def _training_arguments(parser, **changed):
    parser.add_argument(
        "--output",
        required=True,
        metavar="FOLDER",
        help="folder of the training: a new folder, or one to resume",
    )
    parser.add_argument(
        "--quiet", action="store_true", help="do not show progress bars"
    )
    parser.add_argument(
        "--prolong",
        action="store_true",
        help="train a finished training further, up to --epochs in total, with "
        "a new warm-up and decay of the learning rate; all other settings must "
        "be the same",
    )
    add_arguments(parser, Settings.names(), **changed)


def _finetune_arguments(parser):
    _training_arguments(
        parser,
        recipe=("finetune.pets", "finetune.pets"),
        weights=(None, "imagenet, or cifar10 for MixerNano"),
    )


def _finetune(args):
    args.weights = args.weights or default_weights(args.model)
    _run_training(args)


def _train(args):
    if args.epochs is None and not args.prolong:
        args.epochs = EPOCHS
    _run_training(args)


def _run_training(args):
    given = {name: getattr(args, name) for name in Settings.names()}
    if args.recipe.endswith(recipe_files.SUFFIX):
        given["recipe"] = recipe_files.load(args.recipe, args.output)
    settings = Settings(**given)
    checks.check_training(settings)
    bars = 1 if sys.stdout.isatty() else 2
    results = _implementation("train", reads_data_sets=True).train(
        settings,
        args.output,
        verbose=0 if args.quiet else bars,
        prolong=args.prolong,
    )
    if results:
        print(
            "Accuracy on the test images: "
            f"{100 * results['accuracy']:.2f} % ({results['seconds']:.0f} s). "
            f"See '{args.output}'."
        )


def _model_arguments(parser, *others, **changed):
    groups = add_arguments(
        parser,
        ("model", "weights", *others),
        **changed,
        model=(None, "MixerNano, if there is no --run"),
        weights=(None, "imagenet, or cifar10 for MixerNano"),
    )
    groups["model"].add_argument(
        "--run",
        metavar="FOLDER",
        help="folder of a training, instead of --model and --weights",
    )


def _evaluate_arguments(parser):
    _model_arguments(
        parser,
        *("data", "dataset", "data_dir", "batch_size"),
        data=(None, "the images of the run"),
        batch_size=(64, 64),
    )
    parser.add_argument(
        "--few-shot",
        type=int,
        nargs="+",
        default=(),
        metavar="N",
        help="also measure the accuracy of linear maps that are fitted to the "
        "features of N images per class",
    )


def _evaluate(args):
    checks.check_one_model(args.run, args.model, args.weights)
    if args.run is None or args.data or args.dataset:
        checks.check_images(args.data, args.dataset)
    results = _implementation("evaluate", reads_data_sets=True).evaluate(
        run=args.run,
        model=args.model,
        weights=args.weights,
        data=args.data,
        dataset=args.dataset,
        data_dir=args.data_dir,
        batch_size=args.batch_size,
        shots=args.few_shot,
    )
    for shots, accuracy in results.pop("few_shot", {}).items():
        print(f"accuracy with {shots} images per class: {100 * accuracy:.2f} %")
    for what, number in results.items():
        print(f"{what}: {number:.6g}")


def _predict_arguments(parser):
    _model_arguments(parser)
    add = parser.add_argument
    add("files", nargs="+", metavar="PHOTO", help="photo, or folder of photos")
    add(
        "--top",
        type=int,
        default=3,
        help="number of classes to show for each photo (default: %(default)s)",
    )


def _predict(args):
    checks.check_one_model(args.run, args.model, args.weights)
    failed = 0
    for file, result in _implementation("predict").predict(
        args.files,
        run=args.run,
        model=args.model,
        weights=args.weights,
        top=args.top,
    ):
        if isinstance(result, str):
            print(f"keras_mixer: {file}: {result}", file=sys.stderr)
            failed += 1
            continue
        for name, score in result:
            print(f"{file}: {100 * score:5.1f} % {name}", flush=True)
    if failed:
        sys.exit(f"keras_mixer: {failed} paths could not be classified")


def _weights_arguments(parser):
    parser.add_argument(
        "pattern",
        nargs="?",
        default="*",
        help="pattern of the names to list, such as 'mixer_*' (default: all)",
    )


def _weights(args):
    print(table(_matching(args.pattern)), end="")


def _prefetch_arguments(parser):
    parser.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="name of weights, or a pattern of names",
    )


def _prefetch(args):
    # Check all names before the first download.
    records = [r for name in args.names for r in _matching(name)]
    loading = _implementation("convert").loading
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


def _convert_arguments(parser):
    parser.add_argument("source", metavar="IN", help=ANY_FILE)
    parser.add_argument(
        "target",
        metavar="OUT",
        help="file to write: .npz (Flax), .safetensors (timm), .weights.h5 or "
        ".keras",
    )


def _convert(args):
    rows, columns = _implementation("convert").convert(args.source, args.target)
    print(f"{args.target}: for {rows} x {columns} tokens")


def _verify_arguments(parser):
    parser.add_argument("file", metavar="FILE", help=ANY_FILE)


def _verify(args):
    described = _implementation("convert").inspect_file(args.file)
    for what, text in described.items():
        print(f"{what}: {text}")


COMMANDS = (
    (_finetune_arguments, _finetune),
    (_train_arguments, _train),
    (_evaluate_arguments, _evaluate),
    (_predict_arguments, _predict),
    (_weights_arguments, _weights),
    (_prefetch_arguments, _prefetch),
    (_convert_arguments, _convert),
    (_verify_arguments, _verify),
)


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
