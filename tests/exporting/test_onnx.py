"""Exported ONNX models give the same predictions in ONNX Runtime."""

import keras
import numpy as np
import onnxruntime
import pytest

import keras_mixer
from support.helpers import IMAGE
from support.helpers import family_model
from support.helpers import randomise

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="one backend's exporter"
)

MODELS = {
    "ResMLP": lambda: family_model("resmlp"),
    "fused ResMLP": lambda: keras_mixer.fuse(family_model("resmlp")),
    "Mixer with exact GELU": lambda: family_model("mixer", activation="gelu"),
    "Mixer": lambda: family_model("mixer"),
}


@pytest.mark.backends
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore")  # tf2onnx's own
def test_onnx_runtime_gives_the_same_predictions(name, tmp_path):
    model = MODELS[name]()
    randomise(model)
    images = np.random.default_rng(0).uniform(0, 255, (3, *IMAGE))
    images = images.astype("float32")
    expected = keras.ops.convert_to_numpy(model(images))
    model.export(tmp_path / "model.onnx", format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (received,) = session.run(None, {"image": images})
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-6)
