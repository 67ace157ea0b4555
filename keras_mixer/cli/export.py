"""The command `export`: a file of a model for another runtime."""

import dataclasses

from keras_mixer.cli.models import ANY_MODEL
from keras_mixer.cli.models import load
from keras_mixer.cli.names import FORMATS
from keras_mixer.cli.parsing import Arguments
from keras_mixer.cli.parsing import Command
from keras_mixer.cli.parsing import option
from keras_mixer.cli.parsing import positional
from keras_mixer.cli.program import start_keras

# The number of photos for calibration.
MOST_PHOTOS = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportArguments(Arguments):
    """The arguments of `export`."""

    model: str = positional("MODEL", ANY_MODEL, is_path=True)
    target: str = positional(
        "OUTPUT",
        "file to write: .onnx, .xml (OpenVINO), .tflite (LiteRT), .pt2 "
        "(PyTorch), or a folder for a SavedModel of TensorFlow",
        is_path=True,
    )
    format: str | None = option(
        None,
        f"one of {', '.join(FORMATS)}",
        "by the suffix of OUTPUT",
        choices=FORMATS,
        metavar="FORMAT",
    )
    dtype: str = option(
        "float32",
        "dtype of the weights: float32, float16 or int8",
        choices=("float32", "float16", "int8"),
        metavar="DTYPE",
    )
    input_dtype: str = option(
        "float32",
        "dtype of the pixels: float32 or uint8",
        choices=("float32", "uint8"),
        metavar="DTYPE",
    )
    calibrate: str | None = option(
        None,
        f"photos for --dtype int8: up to {MOST_PHOTOS} of them are used to "
        "quantize the activations too",
        "none",
        is_path=True,
        metavar="FOLDER",
    )
    fuse: bool = option(
        False,
        "fold operations into each other first; the outputs are the same",
        action="store_true",
    )
    no_check: bool = option(
        False,
        "do not compare the outputs of the file with those of the model",
        action="store_true",
    )
    overwrite: bool = option(
        False, "replace an existing OUTPUT", action="store_true"
    )

    def __post_init__(self):
        super().__post_init__()
        if self.calibrate is not None and self.dtype != "int8":
            raise ValueError(
                "`--calibrate` is for `--dtype int8`. Received: "
                f"--dtype {self.dtype} --calibrate {self.calibrate}"
            )


def export(arguments):
    """Exports a model to a file, and prints where it is."""
    start_keras()
    from keras_mixer import exporting
    from keras_mixer.models import fusing

    loaded = load(arguments.model)
    network = loaded.model
    calibration = None
    if arguments.calibrate is not None:
        calibration = _photos(arguments.calibrate, loaded)
    exporting.export(
        fusing.fuse(network) if arguments.fuse else network,
        arguments.target,
        arguments.format,
        dtype=arguments.dtype,
        input_dtype=arguments.input_dtype,
        class_names=loaded.class_names,
        image_options=loaded.evaluation,
        calibration=calibration,
        check=not arguments.no_check,
        overwrite=arguments.overwrite,
    )
    print(f"See '{arguments.target}'.")


def _photos(folder, loaded):
    """Returns photos in a folder, chosen evenly from all of them."""
    import numpy as np

    from keras_mixer.cli.predictions import photos_in
    from keras_mixer.data.photos import load_image

    files = [file for file, reason in photos_in([folder]) if reason is None]
    if not files:
        raise ValueError(
            f"`--calibrate` must be a folder of photos. Received: '{folder}'"
        )
    places = np.linspace(0, len(files) - 1, min(len(files), MOST_PHOTOS))
    return np.concatenate(
        [
            load_image(files[round(place)], loaded.model, **loaded.evaluation)
            for place in places
        ]
    )


COMMAND = Command(
    "export",
    ExportArguments,
    export,
    "Export a model to a file for another runtime. The file is run there, and "
    "compared with the model.",
    "runs/photos photos.onnx --fuse",
)
