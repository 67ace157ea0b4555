"""The HTML page of `look`. It needs no other file, no script and no network.

`page.html` is its frame. `ElementTree` escapes all texts. Pictures are part of
the page, as `data:` URIs.
"""

import base64
import html
import importlib.resources
import io
import pathlib
import string
import tempfile
import xml.etree.ElementTree

import keras
import numpy as np

from keras_mixer import training
from keras_mixer.layers.output_activation import output_activation
from keras_mixer.models.anatomy import blocks_of
from keras_mixer.models.anatomy import inner_model
from keras_mixer.models.macs import macs
from keras_mixer.training import finished
from keras_mixer.training.runs import BEST_FILE
from keras_mixer.visualizing import drawing
from keras_mixer.visualizing import token_mixing
from keras_mixer.visualizing.checks import scores_of
from keras_mixer.visualizing.class_activation import class_activation_map
from keras_mixer.visualizing.occlusion import default_stride
from keras_mixer.visualizing.occlusion import occlusion_map

# A page stays readable, and small enough to be sent by mail.
MOST_BLOCKS = 12
MOST_MAPS = 64
MOST_NAMES = 20
MOST_BARS = 5


def document(loaded, photos):
    """Returns the page about a model, a string.

    Args:
        loaded: A `LoadedModel`.
        photos: Dict `{path: image}`; an image is what `load_image` returns.

    Raises:
        ValueError: If the model does not classify photos.
    """
    parts = [_section("Model", _table(_summary(loaded)))]
    if photos:
        network = _with_probabilities(loaded.model, next(iter(photos.values())))
        shown = (
            _photo(network, loaded, path.name, image)
            for path, image in photos.items()
        )
        parts.append(_section("Photos", *shown))
    parts.append(_section("Token mixing", *_mixing(loaded.model)))
    if loaded.run is not None:
        parts.append(_section("Training", *_training(loaded)))
    frame = importlib.resources.files("keras_mixer.cli") / "page.html"
    return string.Template(frame.read_text("utf-8")).substitute(
        title=html.escape(loaded.model.name),
        content="\n".join(
            xml.etree.ElementTree.tostring(part, "unicode", "html")
            for part in parts
        ),
    )


def _with_probabilities(model, image):
    """Returns a model that returns probabilities, if `model` returns logits."""
    scores = scores_of(model, image)
    returned = output_activation(model)
    if returned == "linear":
        softmax = keras.layers.Softmax(name="probabilities", dtype="float32")
        return keras.Model(model.input, softmax(model.output), name=model.name)
    if returned is None and not np.isclose(np.sum(scores), 1, atol=1e-2):
        raise ValueError(
            "To classify photos, the last layer of the model must be a softmax "
            "or a sigmoid, or a `Dense` layer without activation. Add such a "
            f"layer. Received: the model '{model.name}'"
        )
    return model


def _summary(loaded):
    """Yields `(property, text)` of a model."""
    model, names = loaded.model, loaded.class_names
    yield "source", loaded.origin
    yield "input", f"{_sizes(model.input_shape[1:])} (rows, columns, channels)"
    layers = {layer.name: layer for layer in model.layers}
    if "stem" in layers:
        _, *grid, channels = layers["stem"].output.shape
        blocks = sum(name.startswith("block_") for name in layers)
        yield "tokens", f"{_sizes(grid)}, with {channels} channels"
        yield "blocks", str(blocks)
    yield "parameters", f"{model.count_params():,}"
    try:
        yield "GMACs per image", f"{sum(macs(model).values()) / 1e9:.3g}"
    except ValueError as error:  # other models may have layers of any kind
        yield "GMACs per image", f"unknown: {error}"
    if names:
        more = ", ..." * (len(names) > MOST_NAMES)
        yield "classes", f"{len(names)}: {', '.join(names[:MOST_NAMES])}{more}"
    if loaded.run is not None:
        yield from _results(loaded)


def _results(loaded):
    record = training.read_run(loaded.run)
    yield "training images", f"{record['data']['train_count']:,}"
    results = finished.results_of(loaded.file)
    if results:
        accuracy = f"{100 * results['accuracy']:.2f} %"
        yield f"accuracy on {results['images']:,} test images", accuracy


def _sizes(shape):
    return " x ".join(map(str, shape))


def _photo(model, loaded, title, image):
    """Returns the part of the page about one photo."""
    scores = scores_of(model, image)
    names = loaded.class_names or [f"class {i}" for i in range(len(scores))]
    order = np.argsort(-scores, kind="stable")[:MOST_BARS]
    best = int(order[0])
    pixels = drawing.to_pixels(image)
    axes = drawing.bare_axes(*pixels.shape[:2])
    drawing.draw_photo(axes, pixels)
    size = _sizes(pixels.shape[:2])
    pictures = [
        _picture(
            _png_of(axes),
            f"The photo {title}",
            f"What the model gets: the center of the photo, {size} pixels.",
        )
    ]
    notes = []
    try:
        activation = class_activation_map(model, image, best)
        pictures.append(_activation(pixels, activation, title, names[best]))
    except ValueError as error:
        notes.append(_note(f"There is no class activation map. {error}"))
    occlusion = occlusion_map(model, image, best)
    pictures.append(_occlusion(pixels, occlusion, title, names[best]))
    bars = _bars([(names[i], float(scores[i])) for i in order])
    heading = _element("h3", title)
    return _element("article", heading, bars, _gallery(pictures), *notes)


def _activation(pixels, values, title, name):
    return _picture(
        _overlay(pixels, values),
        f"Class activation map of {name} over the photo {title}",
        f"Class activation map: what each token adds to the score of {name}. "
        "Red tokens raise it, blue tokens lower it. "
        f"Values: {values.min():.2f} to {values.max():.2f}, mean "
        f"{values.mean():.2f}.",
    )


def _occlusion(pixels, values, title, name):
    side = 2 * default_stride(*pixels.shape[:2])
    return _picture(
        _overlay(pixels, values),
        f"Occlusion map of {name} over the photo {title}",
        f"Occlusion map: the change of the probability of {name} if a square "
        f"of {side} x {side} pixels is gray. Red: it falls, by up to "
        f"{max(0, 100 * values.max()):.1f} percentage points. Blue: it rises, "
        f"by up to {max(0, -100 * values.min()):.1f}.",
    )


def _overlay(pixels, values):
    axes = drawing.bare_axes(*pixels.shape[:2])
    drawing.draw_heatmap(axes, pixels, values)
    return _png_of(axes)


def _mixing(model):
    """Yields the part of the page about the weights of token mixing."""
    try:
        model = inner_model(model)
        count = len(blocks_of(model))
        spread = np.linspace(0, count - 1, min(count, MOST_BLOCKS))
        mosaics = {
            round(number): token_mixing.mosaic(
                model, round(number), limit=MOST_MAPS
            )
            for number in spread
        }
    except ValueError as error:
        yield _note(f"The weights cannot be shown. {error}")
        return
    values = np.concatenate([values.ravel() for values in mosaics.values()])
    scale = token_mixing.color_limit(values)
    yield _element(
        "p",
        f"{token_mixing.meaning(model, MOST_MAPS)} Red weights are positive, "
        "blue weights negative, and white is zero. The colors end at "
        f"{scale:.2g} and {-scale:.2g}, which 99.5 % of the weights do not "
        "exceed.",
    )
    if len(mosaics) < count:
        yield _note(f"{len(mosaics)} of {count} blocks are shown.")
    pictures = []
    for number, values in mosaics.items():
        axes = drawing.bare_axes(*values.shape)
        token_mixing.draw_mosaic(axes, values, scale)
        text = f"Weights of token mixing in block {number}"
        pictures.append(_picture(_png_of(axes), text, f"Block {number}"))
    yield _gallery(pictures)


def _training(loaded):
    """Yields the part of the page about the training of a model."""
    log = training.read_log(loaded.run)
    if log:
        with tempfile.TemporaryDirectory() as folder:
            curves = pathlib.Path(folder, "curves.png")
            training.plot(log, curves)
            png = curves.read_bytes()
        last = ", ".join(
            f"{key} {value:.3f}"
            for key, value in log[-1].items()
            if key != "epoch"
        )
        yield _picture(
            png,
            f"Curves of the training over {len(log)} epochs",
            f"After {len(log)} epochs: {last}.",
            kind="paper",
        )
    picture = finished.report_folder(loaded.file) / "confusion.png"
    if finished.report_of(loaded.file) is not None and picture.is_file():
        text = "Confusion matrix of the test images"
        yield _picture(picture.read_bytes(), text, f"{text}.", kind="paper")
    else:
        best = " --best" * (loaded.file.name == BEST_FILE)
        yield _note(
            "There is no confusion matrix of this model yet. This command "
            "makes it:",
            f"keras_mixer evaluate --run {loaded.run}{best}",
        )


def _element(tag, *parts, **attributes):
    """Returns an HTML element with a text, then other elements.

    The class of the element is the attribute `kind`.
    """
    if "kind" in attributes:
        attributes["class"] = attributes.pop("kind")
    element = xml.etree.ElementTree.Element(tag, attributes)
    element.text = "".join(part for part in parts if isinstance(part, str))
    element.extend(part for part in parts if not isinstance(part, str))
    return element


def _section(title, *parts):
    return _element("section", _element("h2", title), *parts)


def _note(text, command=None):
    """Returns a remark in small print, which may end in a command to run."""
    code = [_element("code", command)] if command else []
    return _element("p", f"{text} ", *code, kind="note")


def _table(rows):
    """Returns a table of `(name, value)`."""
    return _element("table", *(_row(name, value) for name, value in rows))


def _row(name, *cells):
    heading = _element("th", name, scope="row")
    return _element("tr", heading, *(_element("td", cell) for cell in cells))


def _bars(rows):
    """Returns horizontal bars for `(name, fraction)`."""
    table = _element("table", kind="bars")
    for name, fraction in rows:
        percent = f"{100 * fraction:.1f}"
        bar = _element("span", style=f"width: {percent}%")
        table.append(_row(name, bar, f"{percent} %"))
    return table


def _gallery(pictures):
    """Returns pictures side by side, as many as there is room for."""
    return _element("div", *pictures, kind="gallery")


def _picture(png, alt, caption, **attributes):
    """Returns a picture with a text below.

    Args:
        png: `bytes`, a PNG file.
        alt: Text that says what the picture shows.
        caption: Text below the picture.
        **attributes: Others of the `img` element.
    """
    data = base64.b64encode(png).decode("ascii")
    source = f"data:image/png;base64,{data}"
    image = _element("img", alt=alt, src=source, **attributes)
    return _element("figure", image, _element("figcaption", caption))


def _png_of(axes):
    """Returns the figure of Matplotlib axes as a PNG file."""
    file = io.BytesIO()
    # By default the file has the address of Matplotlib's site in it.
    axes.figure.savefig(
        file, format="png", dpi=100, metadata={"Software": None}
    )
    return file.getvalue()
