"""What the installed package does, away from its sources.

Run by `nox -s wheel` in an environment that has the wheel and one backend.
"""

import pathlib
import subprocess
import sys
import tempfile

import keras
from PIL import Image

import keras_mixer

SOURCES = pathlib.Path(__file__).parent.parent


def check_command(photo):
    """Classifies a photo with the console command."""
    command = pathlib.Path(sys.executable).with_name("keras_mixer")
    result = subprocess.run(
        [command, "predict", photo], capture_output=True, text=True, check=False
    )
    lines = result.stdout.splitlines()
    if result.returncode or result.stderr or len(lines) != 3:
        sys.exit(f"expected three classes, received {result}")


def main():
    package = pathlib.Path(keras_mixer.__file__).parent
    if SOURCES in package.parents and ".nox" not in package.parts:
        sys.exit(f"expected the installed package, received {package}")
    model = keras_mixer.MixerS32(weights=None)
    with tempfile.TemporaryDirectory() as folder:
        photo = pathlib.Path(folder, "photo.jpg")
        Image.effect_mandelbrot((640, 480), (-2, -1, 1, 1), 90).save(photo)
        batch = keras_mixer.load_image(photo, model)
        file = pathlib.Path(folder, "model.keras")
        model.save(file)
        model = keras.saving.load_model(file)
        check_command(photo)
    preds = model.predict(batch, verbose=0)
    (decoded,) = keras_mixer.mixer.decode_predictions(preds)
    if [len(row) for row in decoded] != [3] * 5:
        sys.exit(f"expected five classes, received {decoded}")
    for extra in ("tensorflow", "torch"):
        if extra in sys.modules:
            sys.exit(f"{extra} was imported")
    print("keras_mixer", keras_mixer.__version__, "on", keras.backend.backend())


if __name__ == "__main__":
    main()
