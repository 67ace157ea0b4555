"""The commands that use a trained model."""

import dataclasses
import sys

from keras_mixer.arguments import check_positive_int
from keras_mixer.cli import checks
from keras_mixer.cli.names import FORMATS
from keras_mixer.cli.parsing import OldCommand
from keras_mixer.cli.parsing import add_argument
from keras_mixer.cli.parsing import changed
from keras_mixer.cli.settings import Settings
from keras_mixer.cli.starting import implementation


def add_setting_arguments(parser, names, **others):
    """Adds arguments that are also settings of a training."""
    groups = {}
    for name in names:
        (usual,) = (f for f in dataclasses.fields(Settings) if f.name == name)
        default = usual.default, usual.metadata["shown"]
        field = changed(Settings, name, *others.get(name, default))
        field.name = name
        title = field.metadata["group"]
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        add_argument(groups[title], field)
    return groups


def _model_arguments(parser, *others, **changed):
    groups = add_setting_arguments(
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
    groups["model"].add_argument(
        "--best",
        action="store_true",
        help="use the model of the best epoch of --run, not of the last",
    )


def evaluate_arguments(parser):
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
    parser.add_argument(
        "--output",
        dest="report",
        metavar="FOLDER",
        help="folder for the confusion matrix, the scores of each class and "
        "the mistakes (default: 'evaluation' in the folder of --run, if the "
        "images are those of the run; else none)",
    )


def evaluate(args):
    checks.check_one_model(args.run, args.model, args.weights)
    if args.run is None or args.data or args.dataset:
        checks.check_images(args.data, args.dataset)
    results = implementation("evaluate", reads_data_sets=True).evaluate(
        run=args.run,
        model=args.model,
        weights=args.weights,
        data=args.data,
        dataset=args.dataset,
        data_dir=args.data_dir,
        batch_size=args.batch_size,
        shots=args.few_shot,
        best=args.best,
        output=args.report,
    )
    report = results.pop("report", None)
    for shots, accuracy in results.pop("few_shot", {}).items():
        print(f"accuracy with {shots} images per class: {100 * accuracy:.2f} %")
    for what, number in results.items():
        print(f"{what}: {number:.6g}")
    if report is None:
        return
    reports = implementation("reports")
    print("\n".join(reports.class_lines(report.confusion)))
    if report.folder is not None:
        reports.write_report(report)
        print(f"See '{report.folder}'.")


def predict_arguments(parser):
    _model_arguments(parser)
    add = parser.add_argument
    add(
        "files",
        nargs="+",
        metavar="PHOTO",
        help="photo, folder of photos, or pattern in quotes: 'photos/*.jpg'",
    )
    add(
        "--top",
        type=int,
        default=3,
        metavar="N",
        help="number of classes to show for each photo (default: %(default)s)",
    )
    add(
        "--batch-size",
        type=int,
        default=32,
        metavar="N",
        help="photos to predict at once (default: %(default)s)",
    )
    add(
        "--output",
        dest="predictions",
        metavar="FILE",
        help="also write the probabilities of all classes to this .csv, .json "
        "or .jsonl (one JSON object a line) file",
    )
    add("--overwrite", action="store_true", help="replace an existing FILE")


def predict(args):
    checks.check_one_model(args.run, args.model, args.weights)
    top = check_positive_int("top", args.top)
    module = implementation("predictions")
    module.check_output(args.predictions, args.overwrite)
    predictions = implementation("predict").predict(
        args.files,
        run=args.run,
        model=args.model,
        weights=args.weights,
        batch_size=args.batch_size,
        best=args.best,
    )
    failed = 0
    lines, printable = module.Lines(predictions, top), module.printable
    with module.writing(args.predictions, predictions.names) as write:
        for file, result in predictions.results:
            write(file, result)
            if isinstance(result, str):
                said = f"keras_mixer: {printable(file)}: {result}"
                print(said, file=sys.stderr)
                failed += 1
            else:
                print("\n".join(lines.of(file, result)), flush=True)
    if failed:
        sys.exit(f"keras_mixer: {failed} paths could not be classified")


ANY_MODEL = (
    "folder of a training, .keras file, or name of published weights, such as "
    "MixerNano or mixer_b16.imagenet"
)


def look_arguments(parser):
    add = parser.add_argument
    add("model", metavar="MODEL", help=ANY_MODEL)
    add("photos", nargs="*", metavar="PHOTO", help="photo to classify")
    add(
        "--output",
        dest="page",
        required=True,
        metavar="FILE",
        help="the page to write, such as page.html",
    )
    add("--overwrite", action="store_true", help="replace an existing page")


def look(args):
    implementation("look").look(
        args.model, args.photos, output=args.page, overwrite=args.overwrite
    )
    print(f"See '{args.page}'.")


def export_arguments(parser):
    add = parser.add_argument
    add("model", metavar="MODEL", help=ANY_MODEL)
    add(
        "target",
        metavar="OUTPUT",
        help="file to write: .onnx, .xml (OpenVINO), .tflite (LiteRT), .pt2 "
        "(PyTorch), or a folder for a SavedModel of TensorFlow",
    )
    add(
        "--format",
        choices=FORMATS,
        metavar="FORMAT",
        help=f"one of {', '.join(FORMATS)} (default: by the suffix of OUTPUT)",
    )
    add(
        "--dtype",
        choices=("float32", "float16", "int8"),
        default="float32",
        metavar="DTYPE",
        help="dtype of the weights: float32, float16 or int8 (default: "
        "%(default)s)",
    )
    add(
        "--input-dtype",
        choices=("float32", "uint8"),
        default="float32",
        metavar="DTYPE",
        help="dtype of the pixels: float32 or uint8 (default: %(default)s)",
    )
    add(
        "--calibrate",
        metavar="FOLDER",
        help="photos for --dtype int8: up to 100 of them are used to quantise "
        "the activations too (default: none)",
    )
    add(
        "--fuse",
        action="store_true",
        help="fold operations into each other first; the outputs are the same",
    )
    add(
        "--no-check",
        dest="check",
        action="store_false",
        help="do not compare the outputs of the file with those of the model",
    )
    add("--overwrite", action="store_true", help="replace an existing OUTPUT")


def export(args):
    implementation("export").export(
        args.model,
        args.target,
        format=args.format,
        dtype=args.dtype,
        input_dtype=args.input_dtype,
        calibrate=args.calibrate,
        fuse=args.fuse,
        check=args.check,
        overwrite=args.overwrite,
    )
    print(f"See '{args.target}'.")


def push_arguments(parser):
    add = parser.add_argument
    add("model", metavar="MODEL", help=ANY_MODEL)
    add(
        "target",
        metavar="TARGET",
        help="hf://organization/name, a repository that is created if it is "
        "missing; or a new folder",
    )
    add(
        "--best",
        action="store_true",
        help="use the model of the best epoch of a training, not of the last",
    )
    add(
        "--license",
        metavar="NAME",
        help="licence of the model for the card, such as apache-2.0 (default: "
        "none is stated)",
    )
    add("--private", action="store_true", help="make a new repository private")
    add(
        "--overwrite",
        action="store_true",
        help="replace these files in an existing repository or folder",
    )


def push(args):
    address = implementation("push").push(
        args.model,
        args.target,
        best=args.best,
        license=args.license,
        private=args.private,
        overwrite=args.overwrite,
    )
    print(f"See '{address}'.")


COMMANDS = (
    OldCommand(
        evaluate_arguments,
        evaluate,
        "Measure the accuracy on test images. The model is that of a training, "
        "or has published weights.",
        "--run runs/photos",
    ),
    OldCommand(
        predict_arguments,
        predict,
        "Classify photos. The model is that of a training, or has published "
        "weights.",
        "--run runs/photos photo.jpg",
    ),
    OldCommand(
        look_arguments,
        look,
        "Write an HTML page about a model: what it is, what it sees in your "
        "photos, its weights and its training. The page needs no network.",
        "runs/photos photo.jpg --output page.html",
    ),
    OldCommand(
        export_arguments,
        export,
        "Export a model to a file for another runtime. The file is run there, "
        "and compared with the model.",
        "runs/photos photos.onnx --fuse",
    ),
    OldCommand(
        push_arguments,
        push,
        "Write a model to the Hugging Face hub or to a folder: for Keras, for "
        "timm, with a model card. Log in first: `hf auth login`.",
        "runs/photos hf://me/photos --license apache-2.0",
    ),
)
