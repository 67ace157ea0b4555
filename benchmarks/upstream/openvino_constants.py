"""Calling a model with the OpenVINO backend of Keras gives wrong numbers.

`KERAS_BACKEND=openvino python benchmarks/upstream/openvino_constants.py` prints
the largest difference between `predict` and a call of the same model, whose
outputs are about 1. It should be below 0.1 (OpenVINO computes in bfloat16 on
some processors). It is above 1 with Keras 3.15.1 and OpenVINO 2026.4.1.
"""

import keras
import numpy as np

inputs = keras.Input((32, 32, 3))
x = keras.layers.Conv2D(128, 4, strides=4)(inputs)
x = keras.layers.Reshape((64, 128))(x)
x = keras.layers.LayerNormalization()(x)
x = keras.layers.Permute((2, 1))(x)
model = keras.Model(inputs, keras.layers.Dense(64)(x))

images = np.random.default_rng(0).uniform(-1, 1, (3, 32, 32, 3))
images = images.astype("float32")
called = keras.ops.convert_to_numpy(model(images))
print(np.abs(called - model.predict(images, verbose=0)).max())
