"""Runs a classifier that `keras_mixer.export` has written, without its model.

The file is run by ONNX Runtime or TensorFlow. `serve.py` uses this module.
"""

import json
import os
import pathlib
import typing
from collections.abc import Callable

import numpy as np

import keras_mixer


class Model(typing.NamedTuple):
    """An exported model. `run` takes and returns a batch as an array."""

    run: Callable
    shape: tuple  # of the images: height, width, channels
    dtype: str
    metadata: dict  # JSON: `class_names`, and `image_options` of `load_image`


def load_model(path):
    """Loads an exported classifier, and runs it once.

    Raises:
        OSError, ValueError: If there is no such file, or it is no such model.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"'{path}' does not exist")
    load = load_saved_model if os.path.isdir(path) else load_onnx
    try:
        model = load(path)
        gray = np.full((64, 64), 128, "uint8")
        scores = model.run(photo_as_batch(gray, model))
    except ImportError:
        raise
    # Both runtimes raise nearly anything on other files.
    except Exception as error:
        reason = str(error).partition("\n")[0]
        text = f"'{path}' is not an exported classifier: {reason}"
        raise ValueError(text) from error
    classes = len(model.metadata["class_names"] or scores[0])
    if scores.shape != (1, classes) or scores.min() < 0 or scores.max() > 1:
        raise ValueError(
            f"'{path}' must return a probability for each of its classes. "
            f"Received: shape {scores.shape} for {classes} classes, values in "
            f"[{scores.min():.3g}, {scores.max():.3g}]"
        )
    return model


def load_onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(
        path, providers=["CPUExecutionProvider"]
    )
    image, output = only(session.get_inputs()), only(session.get_outputs())
    dtype = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}[image.type]
    texts = session.get_modelmeta().custom_metadata_map
    return Model(
        lambda batch: session.run([output.name], {image.name: batch})[0],
        tuple(image.shape[1:]),
        dtype,
        parse_metadata(texts.get),
    )


def load_saved_model(path):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    loaded = tf.saved_model.load(path)  # alive as long as `run`
    serve = loaded.signatures["serving_default"]
    name, image = only(serve.structured_input_signature[1].items())
    output = only(serve.structured_outputs)

    def run(batch, model=loaded):
        return serve(**{name: tf.constant(batch)})[output].numpy()

    def text(key):
        file = pathlib.Path(path, "assets.extra", f"{key}.json")
        return file.read_text("utf-8") if file.exists() else None

    shape, dtype = tuple(image.shape[1:]), image.dtype.name
    return Model(run, shape, dtype, parse_metadata(text))


def only(items):
    """Returns the input or the output of a model."""
    if len(items) != 1:
        raise ValueError("it must have one input and one output")
    return next(iter(items))


def parse_metadata(text_of):
    """Returns what `keras_mixer.export` stores besides the model."""
    keys = ("class_names", "image_options")
    return {key: json.loads(text_of(key) or "null") for key in keys}


def photo_as_batch(photo, model):
    options = model.metadata["image_options"] or {}
    batch = keras_mixer.load_image(photo, model.shape, **options)
    return batch.astype(model.dtype)
