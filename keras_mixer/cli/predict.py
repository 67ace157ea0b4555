"""The command `predict`: the probabilities of the classes of photos."""

import dataclasses
import sys

from keras_mixer.arguments import check_positive_int
from keras_mixer.cli.models import ModelArguments
from keras_mixer.cli.models import load_chosen
from keras_mixer.cli.parsing import Command
from keras_mixer.cli.parsing import option
from keras_mixer.cli.parsing import positional
from keras_mixer.cli.program import start_keras


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictArguments(ModelArguments):
    """The arguments of `predict`."""

    files: tuple = positional(
        "PHOTO",
        "photo, folder of photos, or pattern in quotes: 'photos/*.jpg'",
        is_path=True,
        nargs="+",
    )
    top: int = option(
        3, "number of classes to show for each photo", type=int, metavar="N"
    )
    batch_size: int = option(
        32, "photos to predict at once", type=int, metavar="N"
    )
    output: str | None = option(
        None,
        "also write the probabilities of all classes to this .csv, .json or "
        ".jsonl (one JSON object a line) file",
        is_path=True,
        metavar="FILE",
    )
    overwrite: bool = option(
        False, "replace FILE, if `predict` wrote it", action="store_true"
    )

    def __post_init__(self):
        super().__post_init__()
        check_positive_int("top", self.top)
        check_positive_int("batch_size", self.batch_size)


def predict(arguments):
    """Prints the most probable classes of photos, and writes them to a file."""
    from keras_mixer.cli import predictions

    predictions.check_output(arguments.output, arguments.overwrite)
    start_keras()
    loaded = load_chosen(arguments)
    photos = list(predictions.photos_in(arguments.files))
    results = predictions.results(loaded, photos, arguments.batch_size)
    names = [file for file, _ in photos]
    lines = predictions.lines_of(loaded.class_names, names, arguments.top)
    failed = 0
    with predictions.writing(arguments.output, loaded.class_names) as write:
        for file, result in results:
            write(file, result)
            if isinstance(result, str):
                said = f"keras_mixer: {predictions.printable(file)}: {result}"
                print(said, file=sys.stderr)
                failed += 1
            else:
                print("\n".join(lines(file, result)), flush=True)
    if failed:
        sys.exit(f"keras_mixer: {failed} paths could not be classified")


COMMAND = Command(
    "predict",
    PredictArguments,
    predict,
    "Classify photos. The model is that of a training, or has published "
    "weights.",
    "--run runs/photos photo.jpg",
)
