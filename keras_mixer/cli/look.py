"""The command `look`: one HTML page about a model and what it sees."""

import dataclasses
import pathlib

from keras_mixer import atomic
from keras_mixer.cli.models import ANY_MODEL
from keras_mixer.cli.models import BEST
from keras_mixer.cli.models import load
from keras_mixer.cli.parsing import REQUIRED
from keras_mixer.cli.parsing import Arguments
from keras_mixer.cli.parsing import Command
from keras_mixer.cli.parsing import option
from keras_mixer.cli.parsing import positional
from keras_mixer.cli.program import start_keras
from keras_mixer.cli.tables import open_text
from keras_mixer.optional import require

# In the head of each page.
MARK = b'content="keras_mixer look"'


@dataclasses.dataclass(frozen=True, kw_only=True)
class LookArguments(Arguments):
    """The arguments of `look`."""

    model: str = positional("MODEL", ANY_MODEL, is_path=True)
    photos: tuple = positional(
        "PHOTO", "photo to classify", is_path=True, nargs="*"
    )
    best: bool = option(False, BEST, action="store_true")
    output: str = option(
        REQUIRED,
        "the page to write, such as page.html",
        is_path=True,
        metavar="FILE",
    )
    overwrite: bool = option(
        False, "replace FILE, if it is a page of `look`", action="store_true"
    )


def look(arguments):
    """Writes an HTML page about a model."""
    output = pathlib.Path(arguments.output)
    _check_output(output, arguments.overwrite)
    require("matplotlib")
    start_keras()
    from keras_mixer.cli import page
    from keras_mixer.data.photos import load_image

    loaded = load(arguments.model, arguments.best)
    photos = {
        pathlib.Path(photo): load_image(
            photo, loaded.model, **loaded.evaluation
        )
        for photo in arguments.photos
    }
    text = page.document(loaded, photos)
    with atomic.replacing(output) as part, open_text(part) as file:
        file.write(text)
    print(f"See '{output}'.")


def _check_output(output, overwrite):
    if output.is_dir() or not output.parent.is_dir():
        raise ValueError(
            "`--output` must be the path of a file in an existing folder. "
            f"Received: '{output}'"
        )
    if not output.exists():
        return
    with output.open("rb") as file:
        is_page = MARK in file.read(1000)
    if not is_page:
        raise ValueError(
            f"'{output}' exists, and `look` did not write it. Use another path "
            "for `--output`."
        )
    if not overwrite:
        raise ValueError(
            f"'{output}' exists. Use another path for `--output`, or "
            "`--overwrite` to replace it."
        )


COMMAND = Command(
    "look",
    LookArguments,
    look,
    "Write an HTML page about a model: what it is, what it sees in your "
    "photos, its weights and its training. The page needs no network.",
    "runs/photos photo.jpg --output page.html",
)
