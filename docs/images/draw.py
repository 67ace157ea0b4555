"""Draws the pictures of docs/visualizing.md.

`python docs/images/draw.py RUN PHOTO`, where RUN is the folder of a training
and PHOTO a photo of one of its classes.
"""

import io
import pathlib
import sys

import keras
from matplotlib.figure import Figure
from PIL import Image

import keras_mixer
from keras_mixer import training
from keras_mixer import visualizing

FOLDER = pathlib.Path(__file__).parent


def token_mixing():
    model = keras_mixer.MixerNano(weights="cifar10")
    return visualizing.plot_token_mixing(model, blocks=[0, 2, 5])


def attribution(run, photo):
    model = keras.saving.load_model(run / "model.keras")
    names = training.read_run(run)["data"]["class_names"]
    batch = keras_mixer.load_image(photo, model)
    scores = model.predict(batch, verbose=0)[0]
    rows = sorted(zip(names, scores, strict=True), key=lambda row: -row[1])
    figure = Figure((13, 2.8), layout="constrained")
    axes = figure.subplots(1, 4)
    visualizing.plot_predictions(batch, rows[:5], axes=axes[:2])
    activation = visualizing.class_activation_map(model, batch)
    visualizing.plot_heatmap(batch, activation, "logit", axes=axes[2])
    occlusion = visualizing.occlusion_map(model, batch)
    visualizing.plot_heatmap(batch, occlusion, "probability", axes=axes[3])
    return figure


def main(run, photo):
    for name, figure in (
        ("token_mixing", token_mixing()),
        ("attribution", attribution(pathlib.Path(run), photo)),
    ):
        file = io.BytesIO()
        figure.savefig(file, dpi=72)
        # With 256 colors the files are less than a third as large.
        picture = Image.open(file).convert("RGB")
        picture = picture.quantize(256, Image.Quantize.MAXCOVERAGE)
        picture.save(FOLDER / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
