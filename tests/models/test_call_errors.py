"""Error messages of functions and layers: a table of calls."""

import keras
import numpy as np
import pytest

import keras_mixer
from support.helpers import matches

decode = keras_mixer.mixer.decode_predictions

OfKeras2 = type(
    "Functional", (), {"__module__": "tf_keras.src.engine.functional"}
)

CALLS = [
    (
        lambda: keras_mixer.MixerB16(weights="imagenot"),
        ValueError,
        "The `weights` argument should be either `None` (random "
        "initialization), 'imagenet', 'imagenet21k', 'imagenet_sam', "
        "'imagenet_gsam', 'imagenet_miil', 'imagenet21k_miil' (published "
        "weights), 'hf://organization/name' ... Received: weights='imagenot'",
    ),
    (
        lambda: keras_mixer.MixerB16(weights="imagenet", classes=10),
        ValueError,
        "If using `weights='imagenet'` with `include_top=True`, `classes` "
        "should be 1000. For other classes, build the model with "
        '`include_top=False, pooling="avg"`, and give it a new head: '
        "`keras_mixer.new_head(model, classes=10)`. Received: classes=10",
    ),
    (
        lambda: keras_mixer.MixerB16(weights="imagenet21k"),
        ValueError,
        "If using `weights='imagenet21k'` with `include_top=True`, `classes` "
        "should be 21843. ... Received: classes=1000",
    ),
    (
        lambda: keras_mixer.MixerB16(classifier_activation="sigmoid"),
        ValueError,
        "Only `None` and `softmax` activations are allowed for the "
        "`classifier_activation` argument when using pretrained weights, with "
        "`include_top=True`. Received: classifier_activation=...",
    ),
    (
        lambda: keras_mixer.ResMLPS12(weights="imagenet_dino"),
        ValueError,
        "`weights='imagenet_dino'` has no trained head. Use "
        "`include_top=False` and add your own head.",
    ),
    (
        lambda: keras_mixer.MixerS32(weights="imagenet"),
        ValueError,
        "The `weights` argument should be either `None` (random "
        "initialization), 'imagenet_gsam' (published weights), ... Received: "
        "weights='imagenet'",
    ),
    (
        lambda: keras_mixer.freeze(np.zeros(2), None),
        TypeError,
        "`model` must be a Keras model. Received: model of type numpy.ndarray",
    ),
    (
        lambda: keras_mixer.macs(OfKeras2()),
        TypeError,
        "`model` must be a Keras model. Received: model of type "
        "tf_keras.Functional, a model of Keras 2. Use "
        "`keras.saving.load_model`, or build it again with Keras 3",
    ),
    (
        lambda: keras_mixer.few_shot("model", None, None),
        TypeError,
        "`model` must be a Keras model. Received: model of type str",
    ),
    (
        lambda: keras_mixer.list_weights(3),
        TypeError,
        "`pattern` must be a string, such as 'mixer_*'. Received: pattern=3",
    ),
    (
        lambda: keras_mixer.TokenMixing(0),
        ValueError,
        "`mlp_dim` must be a positive integer. Received: mlp_dim=0",
    ),
    (
        lambda: keras_mixer.ChannelMixing(2.5),
        TypeError,
        "`mlp_dim` must be a positive integer. Received: mlp_dim=2.5 (of type "
        "float)",
    ),
    (
        lambda: keras_mixer.TokenMixing(7)(keras.Input((None, 5))),
        ValueError,
        "Layer 'token_mixing...' expects inputs of shape (batch, tokens, "
        "channels) with a known number of tokens, since its weights have one "
        "row for each token. Received: shape=(None, None, 5)",
    ),
    (
        lambda: keras_mixer.MixerBlock(7, 11)(keras.Input((4, 6, 5))),
        ValueError,
        "Layer 'mixer_block...' expects inputs of shape (batch, tokens, "
        "channels) ... Received: shape=(None, 4, 6, 5)",
    ),
    (
        lambda: decode(np.zeros((2, 7))),
        ValueError,
        "`decode_predictions` expects predictions of shape (batch, classes), "
        "where classes is 1000 (ImageNet-1k), 21843 (ImageNet-21k), 11221 "
        "(ImageNet-21k of MIIL) or 10 (CIFAR-10). Use the output of a model "
        "with `include_top=True` and one of these numbers of classes. "
        "Received: array of shape (2, 7)",
    ),
    (
        lambda: decode(np.zeros(1000)),
        ValueError,
        "`decode_predictions` expects ... Received: array of shape (1000,)",
    ),
    (
        lambda: decode(np.zeros((1, 1000)), top=0),
        ValueError,
        "`top` must be a positive integer. Received: top=0",
    ),
    (
        lambda: decode(np.zeros((1, 1000)), top="5"),
        TypeError,
        "`top` must be a positive integer. Received: top='5' (of type str)",
    ),
    (
        lambda: decode(np.full((1, 1000), np.nan)),
        ValueError,
        "`decode_predictions` cannot sort predictions that contain NaN.",
    ),
    (
        lambda: keras_mixer.ChannelMixing(7)(keras.Input((6, None))),
        ValueError,
        "Layer 'channel_mixing...' expects inputs of shape (batch, tokens, "
        "channels) with a known size of the axis that it mixes. Received: "
        "shape=(None, 6, None)",
    ),
    (
        lambda: keras_mixer.load_image(5, None),
        TypeError,
        "`file` must be a path, a binary file object, bytes, a Pillow image "
        "or a NumPy array. Received: file of type int",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), CALLS)
def test_call_raises(call, error, message):
    with pytest.raises(error, match=matches(message)):
        call()
