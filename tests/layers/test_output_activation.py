"""What the last layer says about the outputs of a model."""

import keras
import pytest

from keras_mixer.layers.output_activation import output_activation


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ([keras.layers.Dense(5)], "linear"),
        ([keras.layers.Dense(5, "softmax")], "softmax"),
        (
            [keras.layers.Dense(5), keras.layers.Activation("sigmoid")],
            "sigmoid",
        ),
        ([keras.layers.Dense(5), keras.layers.Softmax()], "softmax"),
        ([keras.layers.Dense(5), keras.layers.Softmax(axis=0)], None),
        ([keras.layers.Dense(5, "relu")], None),
        ([keras.layers.Dense(5), keras.layers.Rescaling(2.0)], None),
        ([keras.layers.Dense(5, kernel_constraint="non_neg")], None),
        ([keras.layers.Dense(5, lambda x: x)], None),
    ],
)
def test_the_last_layer_says_what_a_model_returns(last, expected):
    inner = keras.Sequential([keras.Input((4,)), *last])
    for model in (inner, keras.Sequential([keras.Input((4,)), inner])):
        assert output_activation(model) == expected
    assert (
        output_activation(keras.Model(inner.inputs, 2 * inner.outputs)) is None
    )
