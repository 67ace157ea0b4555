"""With the OpenVINO backend of Keras, `predict` ignores new weights.

`KERAS_BACKEND=openvino python benchmarks/upstream/openvino_stale.py` prints the
outputs before and after the weights were set to zero. The second number should
be 0. It is 1 with Keras 3.15.1.
"""

import keras
import numpy as np

model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
model.set_weights([np.ones((1, 1)), np.zeros(1)])
image = np.ones((1, 1), "float32")
print(model.predict(image, verbose=0))
model.set_weights([np.zeros((1, 1)), np.zeros(1)])
print(model.predict(image, verbose=0))
