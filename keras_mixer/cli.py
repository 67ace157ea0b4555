"""The command line: names of arguments, and printed results."""

import argparse
import sys

from keras_mixer import distributing
from keras_mixer import training
from keras_mixer.commands.convert import convert
from keras_mixer.commands.convert import inspect_file
from keras_mixer.commands.evaluate import evaluate
from keras_mixer.commands.models import default_weights
from keras_mixer.commands.predict import predict
from keras_mixer.commands.train import train
from keras_mixer.models.constructors import MODELS
from keras_mixer.weights import catalog
from keras_mixer.weights import loading


def main(arguments=None):
    """Runs a command: `python -m keras_mixer --help` lists them.

    Args:
        arguments: List of strings, by default those of the process.
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
    """What is said of a command that the user stopped."""
    folder = getattr(args, "output", None)
    if folder is None:
        return "stopped"
    epochs = len(training.read_log(folder))
    return f"stopped after {epochs} epochs. Repeat this command to resume it."


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m keras_mixer",
        description="MLP-Mixer and ResMLP: their weights, training and use.",
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(command, name, text):
        added = subparsers.add_parser(name, help=text, description=text)
        added.set_defaults(command=command)
        return added.add_argument

    argument = add(_weights, "weights", "list the published weights")
    argument("pattern", nargs="?", default="*", help="such as 'mixer_*'")
    argument = add(_prefetch, "prefetch", "fetch weights into the cache")
    argument("names", nargs="+", metavar="NAME", help="as listed, or a pattern")
    argument = add(_convert, "convert", "convert a file of weights")
    argument("source", metavar="IN")
    argument(
        "target",
        metavar="OUT",
        help=".npz (Flax), .safetensors (timm), .weights.h5 or .keras",
    )
    argument = add(_verify, "verify", "say what a file is, and if it is whole")
    argument("file", metavar="FILE")
    argument = add(_train, "train", "train a model from scratch")
    _add_training(argument, "nano.cifar10", epochs=30)
    argument("--weights", help="to begin with: a tag or a file")
    argument = add(
        _finetune, "finetune", "train published weights on other images"
    )
    _add_training(argument, "finetune.pets", epochs=None)
    argument(
        "--weights",
        help="a tag or a file (default: the model's, cifar10 or imagenet)",
    )
    argument = add(_evaluate, "evaluate", "measure on the images held out")
    _add_trained(argument)
    _add_images(argument)
    argument(
        "--few-shot",
        type=int,
        nargs="+",
        default=(),
        metavar="N",
        help="also fit linear maps to the features of N images per class",
    )
    argument = add(_predict, "predict", "say what is on photos")
    _add_trained(argument)
    argument(
        "files", nargs="+", metavar="PHOTO", help="a photo, or a folder of them"
    )
    argument("--top", type=int, default=3, help="how many classes; %(default)s")
    return parser


def _add_training(argument, recipe, epochs):
    _add_images(argument)
    models = ", ".join(MODELS)
    _add_model(argument, f"one of {models}; %(default)s", "MixerNano")
    argument("--output", required=True, help="folder of this training")
    argument("--recipe", default=recipe, help="its name; %(default)s")
    argument(
        "--epochs",
        type=int,
        default=epochs,
        help=f"{epochs or 'as many as the recipe has epochs or steps'}",
    )
    argument("--learning-rate", type=float, help="the peak; the recipe's")
    argument(
        "--layer-decay",
        type=float,
        default=1.0,
        help="learning rate of a block to that of the next; %(default)s",
    )
    argument("--image-size", type=_size, help="pixels: 224, or 192x320")
    argument("--crop-ratio", type=float, help="of the images held out")
    argument(
        "--channels",
        type=int,
        choices=(1, 3),
        default=3,
        help="of the images in --data: 1 for grey, 3 for RGB (default: 3)",
    )
    argument(
        "--accumulate",
        type=int,
        default=1,
        metavar="N",
        help="batches for one update of the weights (default: 1); an update "
        "sees N times --batch-size images",
    )
    argument(
        "--class-weights",
        choices=("balanced",),
        help="make all classes count the same in the loss",
    )
    argument("--no-flip", action="store_true", help="mirror no image")
    argument("--precision", default="float32", help="such as mixed_bfloat16")
    argument(
        "--distribute",
        choices=distributing.KINDS,
        default="auto",
        help="over many devices; %(default)s",
    )
    argument(
        "--jit-compile",
        action=argparse.BooleanOptionalAction,
        default="auto",
        help="whether XLA compiles; what Keras chooses",
    )
    argument("--seed", type=int, default=0, help="%(default)s")
    argument("--quiet", action="store_true", help="without progress bars")


def _add_images(argument):
    argument("--data", metavar="FOLDER", help="with a folder for each class")
    argument("--dataset", metavar="NAME", help="of TensorFlow Datasets")
    argument("--data-dir", metavar="FOLDER", help="where TFDS keeps them")
    argument("--batch-size", type=int, default=64, help="%(default)s")


def _add_trained(argument):
    argument("--run", metavar="FOLDER", help="of a training")
    _add_model(
        argument, "the name of a model (default: MixerNano, without --run)"
    )
    argument(
        "--weights",
        help="tag of its weights (default: the model's, cifar10 or imagenet)",
    )


def _add_model(argument, text, default=None):
    argument(
        "--model",
        choices=MODELS,
        default=default,
        metavar="NAME",
        help=text,
    )


def _size(text):
    """`(height, width)` of "224" or "192x320"."""
    sides = text.split("x")
    if len(sides) > 2 or not all(s.isdecimal() and int(s) for s in sides):
        raise argparse.ArgumentTypeError(
            "expected pixels, such as 224, or height and width, such as "
            f"192x320. Received: {text}"
        )
    return (int(sides[0]), int(sides[-1]))


def _finetune(args):
    args.weights = args.weights or default_weights(args.model)
    _train(args)


def _train(args):
    settings = _settings(args)
    folder, quiet = settings.pop("output"), settings.pop("quiet")
    bars = 1 if sys.stdout.isatty() else 2
    results = train(settings, folder, verbose=0 if quiet else bars)
    if results:
        print(
            "Accuracy on the images held out: "
            f"{100 * results['accuracy']:.2f} % ({results['seconds']:.0f} s). "
            f"See '{folder}'."
        )


def _settings(args):
    settings = dict(vars(args))
    del settings["command"]
    return settings


def _evaluate(args):
    results = evaluate(_settings(args), args.few_shot)
    for shots, accuracy in results.pop("few_shot", {}).items():
        print(f"accuracy with {shots} images per class: {100 * accuracy:.2f} %")
    for what, number in results.items():
        print(f"{what}: {number:.6g}")


def _predict(args):
    failed = 0
    for file, result in predict(_settings(args), args.files, args.top):
        if isinstance(result, str):
            print(f"keras_mixer: {file}: {result}", file=sys.stderr)
            failed += 1
            continue
        for name, score in result:
            print(f"{file}: {100 * score:5.1f} % {name}", flush=True)
    if failed:
        sys.exit(f"keras_mixer: nothing was predicted for {failed} paths")


def _weights(args):
    print(table(_matching(args.pattern)), end="")


def _prefetch(args):
    # All names are looked up before the first is fetched.
    for record in [r for name in args.names for r in _matching(name)]:
        print(f"{record.name}: {loading.fetch(record)}")


def _matching(pattern):
    records = catalog.list_weights(pattern)
    if not records:
        known = ", ".join(record.name for record in catalog.RECORDS)
        raise ValueError(
            f"There are no published weights '{pattern}'. There are: {known}"
        )
    return records


def _convert(args):
    rows, columns = convert(args.source, args.target)
    print(f"{args.target}: for {rows} x {columns} tokens")


def _verify(args):
    for what, text in inspect_file(args.file).items():
        print(f"{what}: {text}")


HEADER = """\
| name | top-1 [%] | classes | MB | trained on |
|---|---:|---:|---:|---|
"""


def table(records):
    """Records as a table in Markdown."""
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
