"""Error messages of the constructors."""

import keras
import numpy as np
import pytest

from support.helpers import IMAGE
from support.helpers import matches

# Options of a tiny model, the type of the error, and its message. "..." matches
# any text.
OPTIONS = [
    (
        {"input_shape": (10, 12, 3)},
        ValueError,
        "The height and width of the image must be multiples of the patch "
        "size. The nearest multiples are (8, 12). Received: "
        "input_shape=(10, 12, 3), patch_size=4",
    ),
    (
        {"input_shape": (1, 12, 3), "include_top": False},
        ValueError,
        "The height and width of the image must be multiples of the patch "
        "size. The nearest multiples are (4, 12). Received: "
        "input_shape=(1, 12, 3), patch_size=4",
    ),
    (
        {"input_shape": None, "patch_size": 12},
        ValueError,
        "The height and width of the image must be multiples of the patch "
        "size. The nearest multiples are (228, 228). Received: "
        "input_shape=(224, 224, 3), patch_size=12",
    ),
    (
        {"input_shape": (None, None, 3), "include_top": False},
        ValueError,
        "`input_shape` must not contain `None`, with or without the top, "
        "because token mixing has one row of weights for each patch of the "
        "image. Resize all images to one size and set it here. Received: "
        "input_shape=(None, None, 3)",
    ),
    (
        {"input_shape": (8, 12)},
        ValueError,
        "`input_shape` must be a tuple of three integers, ('height', 'width', "
        "'channels'). Received: input_shape=(8, 12)",
    ),
    (
        {"input_shape": 8},
        TypeError,
        "`input_shape` must be a tuple of three integers, ('height', 'width', "
        "'channels'). Received: input_shape=8",
    ),
    (
        {"input_shape": (8.0, 12, 3)},
        TypeError,
        "`input_shape[0]` must be a positive integer. Received: "
        "input_shape[0]=8.0 (of type float)",
    ),
    (
        {"input_shape": (8, 12, 0)},
        ValueError,
        "`input_shape[2]` must be a positive integer. Received: "
        "input_shape[2]=0",
    ),
    (
        {"input_tensor": np.zeros((1, *IMAGE))},
        TypeError,
        "`input_tensor` must be a Keras tensor: the output of `keras.Input` "
        "or of a layer called on a Keras tensor. To apply a model to data, "
        "call the model. Received: input_tensor of type ndarray",
    ),
    (
        {"input_tensor": keras.Input(IMAGE), "input_shape": (8, 8, 3)},
        ValueError,
        "`input_shape` must be the shape of `input_tensor`. Set only one of "
        "them. Received: input_shape=(8, 8, 3), "
        "input_tensor.shape=(None, 8, 12, 3)",
    ),
    (
        {"input_tensor": keras.Input(IMAGE), "input_shape": 8},
        ValueError,
        "`input_shape` must be the shape of `input_tensor`. ... 8, ",
    ),
    (
        {
            "input_tensor": keras.Input(IMAGE, dtype="uint8"),
            "include_preprocessing": False,
        },
        ValueError,
        "With `include_preprocessing=False`, `input_tensor` must contain "
        "scaled pixels, so its dtype must be a float dtype. Received: "
        "input_tensor of dtype uint8",
    ),
    (
        {"input_tensor": keras.Input((None, 12, 3))},
        ValueError,
        "`input_shape` must not contain `None`, ... Received: "
        "input_shape=(None, 12, 3)",
    ),
    (
        {"input_tensor": keras.Input((8, 12))},
        ValueError,
        "`input_shape` must be a tuple of three integers, ... Received: "
        "input_shape=(8, 12)",
    ),
    (
        {"pooling": "mean", "include_top": False},
        ValueError,
        "`pooling` must be `None`, 'avg', 'max' or 'grid'. "
        "Received: pooling='mean'",
    ),
    (
        {"weights": "imagenet"},
        ValueError,
        "The `weights` argument should be either `None` (random "
        "initialization), 'hf://organization/name' (a repository of the "
        "Hugging Face hub), or the path to the weights file to be loaded "
        "(.weights.h5, .keras, .npz, .safetensors, .pth, .pt, .bin, .ckpt, "
        ".pth.tar). Received: weights='imagenet'",
    ),
    (
        {"weights": "missing.weights.h5"},
        ValueError,
        "The `weights` argument should be ... Received: "
        "weights='missing.weights.h5', which is not a file",
    ),
    (
        {"weights": "hf://organization"},
        ValueError,
        "The `weights` argument should be ... weights='hf://organization'",
    ),
    (
        {"weights": "hf://organization/name/notes.txt"},
        ValueError,
        "The `weights` argument should be ... Received: "
        "weights='hf://organization/name/notes.txt'",
    ),
    (
        {"resize": "stretch"},
        ValueError,
        "The resize method must be 'auto', one of ('tile', 'interleave', "
        "'interpolate'), or `None` (do not resize). Received: 'stretch'",
    ),
    (
        {"weights": 3},
        TypeError,
        "The `weights` argument should be ... Received: weights=3",
    ),
    (
        {"classes": 0},
        ValueError,
        "`classes` must be a positive integer. Received: classes=0",
    ),
    (
        {"classes": "10"},
        TypeError,
        "`classes` must be a positive integer. Received: classes='10' (of "
        "type str)",
    ),
    (
        {"classes": True},
        TypeError,
        "`classes` must be a positive integer. Received: classes=True (of "
        "type bool)",
    ),
    (
        {"classifier_activation": "sofmax"},
        ValueError,
        "Could not interpret activation function identifier: sofmax",
    ),
    (
        {"dropout_rate": 1.0},
        ValueError,
        "`dropout_rate` must be in [0, 1): it is the fraction that is dropped. "
        "Received: dropout_rate=1.0",
    ),
    (
        {"stochastic_depth_rate": -0.1},
        ValueError,
        "`stochastic_depth_rate` must be in [0, 1): it is the fraction that "
        "is dropped. Received: stochastic_depth_rate=-0.1",
    ),
    (
        {"stochastic_depth_rate": "0.1"},
        TypeError,
        "`stochastic_depth_rate` must be a number. Received: "
        "stochastic_depth_rate='0.1' (of type str)",
    ),
    (
        {"dropout_rate": np.array([0.1, 0.2])},
        TypeError,
        "`dropout_rate` must be a number. Received: ... (of type ndarray)",
    ),
    (
        {"dropout_rate": float("nan")},
        ValueError,
        "`dropout_rate` must be a finite number. Received: dropout_rate=nan",
    ),
    (
        {"patch_size": (4, 5)},
        ValueError,
        "The height and width of the image must be multiples of the patch "
        "size. The nearest multiples are (8, 10). Received: "
        "input_shape=(8, 12, 3), patch_size=(4, 5)",
    ),
    (
        {"patch_size": (4, 3, 1)},
        ValueError,
        "`patch_size` must be a positive integer, or a pair `(height, width)`. "
        "Received: patch_size=(4, 3, 1)",
    ),
    (
        {"patch_size": (4, 0)},
        ValueError,
        "`patch_size[1]` must be a positive integer. Received: patch_size[1]=0",
    ),
    *(
        (
            {size: 0},
            ValueError,
            f"`{size}` must be a positive integer. Received: {size}=0",
        )
        for size in (
            "patch_size",
            "num_blocks",
            "hidden_dim",
            "tokens_mlp_dim",
            "channels_mlp_dim",
        )
    ),
]


@pytest.mark.parametrize(("options", "error", "message"), OPTIONS)
def test_constructor_raises(tiny, options, error, message):
    with pytest.raises(error, match=matches(message)):
        tiny(**options)
