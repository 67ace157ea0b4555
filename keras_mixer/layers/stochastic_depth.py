"""Stochastic depth."""

from typing import Any

import keras

from keras_mixer.arguments import check_rate
from keras_mixer.types import Config
from keras_mixer.types import Shape
from keras_mixer.types import Tensor


@keras.saving.register_keras_serializable(package="keras_mixer")
class StochasticDepth(keras.Layer):
    """Drops whole samples of a residual branch during training.

    Each sample of the batch is dropped independently with probability `rate`.
    The other samples are divided by `1 - rate`, so the expected output is the
    input.

    Source: arXiv 1603.09382. In MLP-Mixer (section 3) the rate grows linearly
    over the blocks. The official training code does not divide.

    Args:
        rate: Float in [0, 1), the probability that a sample is dropped.
        seed: Optional integer seed.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Call arguments:
        inputs: Tensor of shape `(batch, ...)`.
        training: Boolean. Samples are dropped only if it is `True`.

    Raises:
        ValueError: If `rate` is outside [0, 1).
        TypeError: If `rate` is not a number.

    Example:

    >>> import keras_mixer
    >>> layer = keras_mixer.StochasticDepth(0.5)
    >>> y = layer(keras.ops.ones((4, 3, 2)), training=True)
    >>> sorted(set(keras.ops.convert_to_numpy(y).ravel())) in (
    ...     [0.0, 2.0], [0.0], [2.0])
    True
    """

    def __init__(
        self, rate: float, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True  # no token is moved
        self.rate = check_rate("rate", rate)
        self.seed = seed
        if self.rate:
            self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: Tensor, training: bool | None = False) -> Tensor:
        if not (training and self.rate):
            return inputs
        return keras.random.dropout(
            inputs,
            self.rate,
            noise_shape=(None,) + (1,) * (len(inputs.shape) - 1),
            seed=self.seed_generator,
        )

    def rematerialized_call(self, layer_call, *args, **kwargs):
        return layer_call  # a second call would drop other samples

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> Config:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
