"""With TensorFlow, `predict` of one small batch takes tens of milliseconds.

`KERAS_BACKEND=tensorflow python benchmarks/upstream/tensorflow_predict.py`
prints the time of `predict` and of `predict_on_batch` for a model with one
`Dense`. `predict` makes and starts a `tf.data` pipeline in each call. For
single images, use `predict_on_batch`.
"""

import time

import keras
import numpy as np


def milliseconds(function, repeats=30):
    """The median time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
image = np.ones((1, 3), "float32")
model.predict(image, verbose=0)
model.predict_on_batch(image)
for name, call in (
    ("predict", lambda: model.predict(image, verbose=0)),
    ("predict_on_batch", lambda: model.predict_on_batch(image)),
):
    print(f"{name}: {milliseconds(call):.1f} ms")
