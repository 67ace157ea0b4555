"""Small pictures of the figures that the package draws.

`PYTHONPATH=tests python -m support.figures` writes them. Versions of Matplotlib
draw text and lines a little differently, so the pictures have few pixels, and
are compared with a tolerance. Look at each before you commit it.
"""

import io

import numpy as np

from keras_mixer import visualizing
from support import helpers

FOLDER = helpers.GOLDEN / "figures"

# Pixels of a figure for one pixel of its picture, along both sides.
SHRINK = 8


def photo():
    """A photo of 24 x 36 pixels: a bright disc before a gradient."""
    y, x = np.mgrid[:24, :36]
    pixels = np.stack([4 * x, 6 * y, 160 - 3 * x], axis=-1).astype("float32")
    pixels[np.hypot(y - 9, x - 22) < 6] = (250, 240, 120)
    return pixels


def model(family):
    built = helpers.family_model(family, input_shape=(12, 20, 3))
    helpers.randomise(built)
    return built


def heatmap():
    y, x = np.mgrid[:4, :6]
    return np.cos(x) * (y + 1) - 1.0


PREDICTIONS = [
    ("n1", "a $b$ <c>", 0.62),
    ("n2", "dog", 0.3),
    ("n3", "ox", 0.08),
]


def draw():
    """Yields `(name, figure)`."""
    mixer, resmlp = model("mixer"), model("resmlp")
    for order in ("frequency", "similarity"):
        yield (
            f"mixer_{order}",
            visualizing.plot_token_mixing(mixer, order=order),
        )
    yield "resmlp", visualizing.plot_token_mixing(resmlp, [1])
    yield "heatmap", visualizing.plot_heatmap(photo(), heatmap(), "logit")
    yield "predictions", visualizing.plot_predictions(photo(), PREDICTIONS)


def shrink(figure):
    """Returns the picture of a figure as a small Pillow image."""
    from PIL import Image

    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return Image.open(file).convert("RGB").reduce(SHRINK)


def main():
    FOLDER.mkdir(exist_ok=True)
    for name, figure in draw():
        shrink(figure).save(FOLDER / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
