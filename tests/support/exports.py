"""The formats that this backend writes, and a comparison of their files."""

import keras
import numpy as np
import pytest

from keras_mixer.exporting.running import load
from support.helpers import outputs

BACKEND = keras.backend.backend()
on_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="TensorFlow writes these formats"
)
on_torch = pytest.mark.skipif(
    BACKEND != "torch", reason="PyTorch writes this format"
)
# For each backend that writes files, one of its formats.
FORMATS = {"tensorflow": "onnx", "torch": "torch"}
where_one_is_written = pytest.mark.skipif(
    BACKEND not in FORMATS, reason="writes no format itself"
)
SUFFIXES = {
    "saved_model": "",
    "onnx": ".onnx",
    "openvino": ".xml",
    "litert": ".tflite",
    "torch": ".pt2",
}


def assert_same(model, path, format, photos, tolerance, name="predictions"):
    """Compares a file with its model on images that `export` has not seen."""
    for batch in (photos[:1], photos[-3:]):
        (received,) = load(format, path)(batch.astype("float32")).items()
        assert received[0] == name
        expected = outputs(model, batch)
        assert received[1].shape == expected.shape
        np.testing.assert_allclose(
            received[1], expected, atol=tolerance * np.abs(expected).max()
        )
