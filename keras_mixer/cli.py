"""The command line: parses the arguments and prints the results."""

import argparse
import sys

from keras_mixer import training
from keras_mixer.commands.convert import convert
from keras_mixer.commands.convert import inspect_file
from keras_mixer.commands.evaluate import evaluate
from keras_mixer.commands.look import look
from keras_mixer.commands.models import default_weights
from keras_mixer.commands.predict import predict
from keras_mixer.commands.seeds import described
from keras_mixer.commands.seeds import train_seeds
from keras_mixer.commands.settings import Settings
from keras_mixer.commands.settings import add_arguments
from keras_mixer.commands.train import train
from keras_mixer.weights import catalog
from keras_mixer.weights import loading


def main(arguments=None):
    """Runs a command: `python -m keras_mixer --help` lists them.

    Args:
        arguments: List of strings; by default `sys.argv[1:]`.
    """
    args = _parser().parse_args(arguments)
    try:
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
        print(f"keras_mixer: {_stopped(args)}", file=sys.stderr)
        sys.exit(130)  # as shells do for Ctrl-C


def _stopped(args):
    """Returns the message for a command that the user stopped."""
    folder = getattr(args, "output", None)
    if folder is None:
        return "stopped"
    if getattr(args, "seeds", None):
        return "stopped. Repeat this command to resume it."
    epochs = len(training.read_log(folder))
    return f"stopped after {epochs} epochs. Repeat this command to resume it."


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m keras_mixer",
        description="MLP-Mixer and ResMLP: their weights, training and use.",
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for arguments, command, text in (
        (_weights_arguments, _weights, "list the published weights"),
        (_prefetch_arguments, _prefetch, "download weights to the cache"),
        (_convert_arguments, _convert, "convert a weight file"),
        (_verify_arguments, _verify, "describe and check a weight file"),
        (_train_arguments, _train, "train a model from scratch"),
        (_finetune_arguments, _finetune, "train published weights on images"),
        (_evaluate_arguments, _evaluate, "measure the accuracy on test images"),
        (_predict_arguments, _predict, "classify photos"),
        (_look_arguments, _look, "write an HTML page about a model"),
    ):
        name = command.__name__.removeprefix("_")
        added = subparsers.add_parser(name, help=text, description=text)
        added.set_defaults(command=command)
        arguments(added.add_argument)
    return parser


def _train_arguments(add, **changed):
    add_arguments(add, Settings.names(), **{"epochs": (30, 30), **changed})
    add(
        "--output",
        required=True,
        metavar="FOLDER",
        help="folder of the training: a new folder, or one to resume",
    )
    add(
        "--seeds",
        type=int,
        nargs="+",
        metavar="SEED",
        help="train once with each of these seeds, each in a folder in "
        "--output, and show the mean accuracy (default: train with --seed)",
    )
    add("--quiet", action="store_true", help="do not show progress bars")


def _finetune_arguments(add):
    _train_arguments(
        add,
        epochs=(None, "the recipe's"),
        recipe=("finetune.pets", "finetune.pets"),
        weights=(None, "the model's, cifar10 or imagenet"),
    )


def _finetune(args):
    args.weights = args.weights or default_weights(args.model)
    _train(args)


def _train(args):
    settings = Settings(
        **{name: getattr(args, name) for name in Settings.names()}
    )
    bars = 1 if sys.stdout.isatty() else 2
    verbose = 0 if args.quiet else bars
    if getattr(args, "seeds", None):
        if args.seed:
            raise ValueError(
                "Give either `--seed` or `--seeds`. "
                f"Received: seed={args.seed}, seeds={args.seeds}"
            )
        summary = train_seeds(settings, args.seeds, args.output, verbose)
        print("\n".join([*described(summary), f"See '{args.output}'."]))
        return
    results = train(settings, args.output, verbose=verbose)
    if results:
        print(
            "Accuracy on the test images: "
            f"{100 * results['accuracy']:.2f} % ({results['seconds']:.0f} s). "
            f"See '{args.output}'."
        )


def _model_arguments(add):
    add("--run", metavar="FOLDER", help="folder of a training")
    add_arguments(
        add,
        ("model", "weights"),
        model=(None, "MixerNano, if there is no --run"),
        weights=(None, "the model's, cifar10 or imagenet"),
    )


def _evaluate_arguments(add):
    _model_arguments(add)
    add_arguments(
        add,
        ("data", "dataset", "data_dir", "batch_size"),
        data=(None, "the images of the run"),
    )
    add(
        "--few-shot",
        type=int,
        nargs="+",
        default=(),
        metavar="N",
        help="also measure the accuracy of linear maps that are fitted to the "
        "features of N images per class",
    )


def _evaluate(args):
    results = evaluate(
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


def _predict_arguments(add):
    _model_arguments(add)
    add("files", nargs="+", metavar="PHOTO", help="photo, or folder of photos")
    add(
        "--top",
        type=int,
        default=3,
        help="number of classes to show for each photo (default: %(default)s)",
    )


def _predict(args):
    failed = 0
    for file, result in predict(
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


def _look_arguments(add):
    add(
        "model",
        metavar="MODEL",
        help="folder of a training, .keras file, or name of published weights, "
        "such as MixerNano or mixer_b16.imagenet",
    )
    add("photos", nargs="*", metavar="PHOTO", help="photo to classify")
    add(
        "--output",
        dest="page",
        required=True,
        metavar="FILE",
        help="the page to write, such as page.html",
    )
    add("--overwrite", action="store_true", help="replace an existing page")


def _look(args):
    look(args.model, args.photos, output=args.page, overwrite=args.overwrite)
    print(args.page)


def _weights_arguments(add):
    add(
        "pattern",
        nargs="?",
        default="*",
        help="pattern of the names to list, such as 'mixer_*' (default: all)",
    )


def _weights(args):
    print(table(_matching(args.pattern)), end="")


def _prefetch_arguments(add):
    add(
        "names",
        nargs="+",
        metavar="NAME",
        help="name of weights, or a pattern of names",
    )


def _prefetch(args):
    # Check all names before the first download.
    for record in [r for name in args.names for r in _matching(name)]:
        print(f"{record.name}: {loading.fetch(record)}")


def _matching(pattern):
    records = catalog.list_weights(pattern)
    if not records:
        known = ", ".join(record.name for record in catalog.RECORDS)
        raise ValueError(
            f"There are no published weights '{pattern}'. Use one of: {known}"
        )
    return records


def _convert_arguments(add):
    add("source", metavar="IN", help="weight file of any known format")
    add(
        "target",
        metavar="OUT",
        help="file to write: .npz (Flax), .safetensors (timm), .weights.h5 or "
        ".keras",
    )


def _convert(args):
    rows, columns = convert(args.source, args.target)
    print(f"{args.target}: for {rows} x {columns} tokens")


def _verify_arguments(add):
    add("file", metavar="FILE", help="weight file of any known format")


def _verify(args):
    for what, text in inspect_file(args.file).items():
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
