"""The command `look`: one HTML page about a model and what it sees."""

import io
import pathlib

import keras
import numpy as np

from keras_mixer import training
from keras_mixer.commands.subjects import load_subject
from keras_mixer.data.photos import load_image
from keras_mixer.models.anatomy import blocks_of
from keras_mixer.models.anatomy import inner_model
from keras_mixer.models.macs import macs
from keras_mixer.optional import require
from keras_mixer.visualizing import drawing
from keras_mixer.visualizing import page
from keras_mixer.visualizing import token_mixing
from keras_mixer.visualizing.class_activation import class_activation_map
from keras_mixer.visualizing.occlusion import default_stride
from keras_mixer.visualizing.occlusion import occlusion_map

# A page stays readable, and small enough to be sent by mail.
MOST_BLOCKS = 12
MOST_MAPS = 64
MOST_NAMES = 20
BEST = 5

# In the folder of a training, written by the command `evaluate`.
CONFUSION_FILE = pathlib.Path("evaluation", "confusion.png")


def look(model, photos=(), *, output, overwrite=False):
    """Writes an HTML page about a model.

    Args:
        model: The folder of a training, a `.keras` file, or the name of
            published weights.
        photos: Paths of photos to classify.
        output: Path of the page.
        overwrite: Whether to replace an existing file.

    Raises:
        ValueError: If the model is unknown, a photo cannot be read, or the page
            exists and `overwrite` is `False`. Nothing is written then.
        OSError: If a file cannot be read or written.
        ImportError: If Matplotlib or Pillow is not installed.
    """
    output = pathlib.Path(output)
    _check_output(output, overwrite)
    require("matplotlib")
    subject = load_subject(model)
    network, names = subject.trained.model, subject.trained.names[0]
    options = subject.trained.evaluation
    images = [load_image(photo, network, **options) for photo in photos]
    network = _with_probabilities(network, images)
    parts = [page.section("Model", page.table(_summary(subject)))]
    if images:
        shown = [
            _photo(network, names, pathlib.Path(photo).name, image)
            for photo, image in zip(photos, images, strict=True)
        ]
        parts.append(page.section("Photos", *shown))
    parts.append(page.section("Token mixing", *_mixing(network)))
    if subject.run is not None:
        parts.append(page.section("Training", *_training(subject.run)))
    _write(output, page.document(network.name, *parts))


def _check_output(output, overwrite):
    if output.is_dir() or not output.parent.is_dir():
        raise ValueError(
            "`--output` must be the path of a file in an existing folder. "
            f"Received: '{output}'"
        )
    if output.exists() and not overwrite:
        raise ValueError(
            f"'{output}' exists. Give another path, or add `--overwrite`."
        )


def _write(output, text):
    part = output.with_name(f"unfinished_{output.name}")
    try:
        part.write_text(text, "utf-8")
        part.replace(output)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _with_probabilities(model, images):
    """Returns a model that returns probabilities, if `model` returns logits."""
    scores = [_scores(model, image) for image in images]
    if all(((score >= 0) & (score <= 1)).all() for score in scores):
        return model
    output = keras.layers.Softmax(name="probabilities")(model.output)
    return keras.Model(model.input, output, name=model.name)


def _scores(model, image):
    scores = model.predict_on_batch(image)
    if scores.ndim != 2:
        raise ValueError(
            "To classify photos, the model must return one score for each "
            f"class. Received: a model with output of shape {scores.shape}"
        )
    return scores[0]


def _summary(subject):
    """Returns `(property, text)` of a model."""
    model, (names, *_), _ = subject.trained
    yield "source", subject.origin
    yield "input", f"{_sizes(model.input_shape[1:])} (rows, columns, channels)"
    layers = {layer.name: layer for layer in model.layers}
    if "stem" in layers:
        _, *grid, channels = layers["stem"].output.shape
        blocks = sum(name.startswith("block_") for name in layers)
        yield "tokens", f"{_sizes(grid)}, with {channels} channels"
        yield "blocks", blocks
    yield "parameters", f"{model.count_params():,}"
    yield "GMACs per image", _gmacs(model)
    if names:
        more = ", ..." * (len(names) > MOST_NAMES)
        listed = ", ".join(names[:MOST_NAMES])
        yield "classes", f"{len(names)}: {listed}{more}"
    if subject.run is not None:
        record = training.read_run(subject.run)
        data, results = record["data"], record.get("finished", {})
        yield "training images", f"{data['train_count']:,}"
        if "accuracy" in results:
            accuracy = f"{100 * results['accuracy']:.2f} %"
            yield f"accuracy on {data['test_count']:,} test images", accuracy


def _gmacs(model):
    try:
        return f"{sum(macs(model).values()) / 1e9:.3g}"
    except ValueError as error:  # other models may have layers of any kind
        return f"unknown: {error}"


def _sizes(shape):
    return " x ".join(map(str, shape))


def _photo(model, names, title, image):
    """Returns the part of the page about one photo."""
    scores = _scores(model, image)
    order = np.argsort(-scores, kind="stable")[:BEST]
    best = int(order[0])
    rows = [(names[i], float(scores[i])) for i in order]
    pixels = drawing.to_pixels(image)
    axes = drawing.bare_axes(*pixels.shape[:2])
    drawing.draw_photo(axes, pixels)
    size = _sizes(pixels.shape[:2])
    pictures = [
        page.picture(
            page.png_of(axes),
            f"The photo {title}",
            f"What the model gets: the centre of the photo, {size} pixels.",
        )
    ]
    try:
        activation = class_activation_map(model, image, best)
        pictures.append(_activation(pixels, activation, title, names[best]))
        reason = ""
    except ValueError as error:
        reason = page.note(f"There is no class activation map. {error}")
    occlusion = occlusion_map(model, image, best)
    pictures.append(_occlusion(pixels, occlusion, title, names[best]))
    return page.article(title, page.bars(rows), page.gallery(pictures), reason)


def _activation(pixels, values, title, name):
    return page.picture(
        _overlay(pixels, values),
        f"Class activation map of {name} over the photo {title}",
        f"Class activation map: what each token adds to the score of {name}. "
        "Red tokens raise it, blue tokens lower it. "
        f"Values: {values.min():.2f} to {values.max():.2f}, mean "
        f"{values.mean():.2f}.",
    )


def _occlusion(pixels, values, title, name):
    side = 2 * default_stride(*pixels.shape[:2])
    return page.picture(
        _overlay(pixels, values),
        f"Occlusion map of {name} over the photo {title}",
        f"Occlusion map: the change of the probability of {name} if a square "
        f"of {side} x {side} pixels is grey. Red: it falls, by up to "
        f"{max(0, 100 * values.max()):.1f} percentage points. Blue: it rises, "
        f"by up to {max(0, -100 * values.min()):.1f}.",
    )


def _overlay(pixels, values):
    axes = drawing.bare_axes(*pixels.shape[:2])
    drawing.draw_heatmap(axes, pixels, values)
    return page.png_of(axes)


def _mixing(model):
    """Yields the part of the page about the weights of token mixing."""
    try:
        model = inner_model(model)
        count = len(blocks_of(model))
        spread = np.linspace(0, count - 1, min(count, MOST_BLOCKS))
        numbers = [round(number) for number in spread]
        mosaics = [
            token_mixing.mosaic(model, number, limit=MOST_MAPS)
            for number in numbers
        ]
    except ValueError as error:
        yield page.note(f"The weights cannot be shown. {error}")
        return
    scale = token_mixing.color_limit(np.concatenate([*map(np.ravel, mosaics)]))
    yield page.paragraph(
        f"{token_mixing.meaning(model, MOST_MAPS)} Red weights are positive, "
        "blue weights negative, and white is zero. The colours end at "
        f"{scale:.2g} and {-scale:.2g}, which 99.5 % of the weights do not "
        "exceed."
    )
    if len(numbers) < count:
        yield page.note(f"{len(numbers)} of {count} blocks are shown.")
    yield page.gallery(
        page.picture(
            _mosaic(values, scale),
            f"Weights of token mixing in block {number}",
            f"Block {number}",
        )
        for number, values in zip(numbers, mosaics, strict=True)
    )


def _mosaic(values, scale):
    axes = drawing.bare_axes(*values.shape)
    token_mixing.draw_mosaic(axes, values, scale)
    return page.png_of(axes)


def _training(run):
    """Yields the part of the page about the training in a folder."""
    log = training.read_log(run)
    if log:
        file = io.BytesIO()
        training.plot(log, file)
        last = ", ".join(
            f"{key} {value:.3f}"
            for key, value in log[-1].items()
            if key != "epoch"
        )
        yield page.picture(
            file.getvalue(),
            f"Curves of the training over {len(log)} epochs",
            f"After {len(log)} epochs: {last}.",
            paper=True,
        )
    confusion = run / CONFUSION_FILE
    if confusion.is_file():
        yield page.picture(
            confusion.read_bytes(),
            "Confusion matrix of the test images",
            "Confusion matrix of the test images.",
            paper=True,
        )
    else:
        yield page.note(
            "There is no confusion matrix yet. This command makes it:",
            f"keras_mixer evaluate --run {run}",
        )
