"""Class activation maps, without gradients.

The head is a linear map of the mean over the tokens. The mean and the linear
map can be swapped: each token has a score for each class, and the mean of these
scores over the tokens, plus the bias, is the logit of the class. These scores
are the map. No approximation is involved.
"""

import keras
import numpy as np

from keras_mixer.models.anatomy import body_of
from keras_mixer.models.anatomy import grid_of
from keras_mixer.models.anatomy import head_of
from keras_mixer.models.anatomy import inner_model
from keras_mixer.models.anatomy import inner_models
from keras_mixer.models.calls import output_of
from keras_mixer.models.graph import with_front
from keras_mixer.visualizing.checks import check_class
from keras_mixer.visualizing.checks import check_image
from keras_mixer.visualizing.checks import outputs_of
from keras_mixer.visualizing.checks import scores_of


def class_activation_map(
    model: keras.Model,
    image: np.ndarray,
    class_index: int | None = None,
) -> np.ndarray:
    """Returns how much each token of an image speaks for a class.

    The mean of the map, plus the bias of the head, is the logit of the class.
    No gradients are computed.

    Source: equation (2) of Zhou et al. (arXiv 1512.04150).

    Args:
        model: A model of this package whose last layers are the mean over the
            tokens and one `Dense` layer. Dropout between them and activations
            after them are allowed. The model may be fused, or be a layer of
            another model, as in `keras.Sequential([augmentation, backbone,
            keras.layers.Dense(5)])` where `backbone` has `pooling="avg"`.
        image: Array of shape `(height, width, channels)`, or a batch of one
            image as `keras_mixer.load_image` returns.
        class_index: Non-negative integer, the number of the class. The default
            is the class with the highest score.

    Returns:
        A float32 array of shape `(rows, columns)`, the grid of tokens.

    Raises:
        ValueError: If the model has other last layers, or a quantized head; if
            the image has another shape; or if there is no such class.
        TypeError: If an argument has the wrong type.

    Example:

    >>> import numpy as np
    >>> import keras_mixer
    >>> from keras_mixer import visualizing
    >>> model = keras_mixer.MixerNano(weights="cifar10")
    >>> photo = np.random.default_rng(0).uniform(0, 255, (32, 32, 3))
    >>> visualizing.class_activation_map(model, photo, class_index=3).shape
    (8, 8)
    """
    batch = check_image(image, model)
    index = check_class(class_index, scores_of(model, batch))
    head, tokens = _head_and_tokens(model)
    values = outputs_of(tokens, batch)[0]
    kernel = keras.ops.convert_to_numpy(head.kernel)[:, index]
    scores = values.astype("float32") @ kernel.astype("float32")
    return scores.reshape(grid_of(inner_model(model)))


def _head_and_tokens(model):
    """Returns the head, and a model that computes the tokens before the mean.

    If the model is fused, the scale of the last norm is part of the head. The
    tokens are then not scaled, and the map does not change.
    """
    if not inner_models(model):
        raise _unsuitable(model, "no model of this package")
    head = head_of(model)
    if head is None or head.quantization_mode:
        raise _unsuitable(model, "another head")
    last = body_of(inner_model(model))[-1].name
    tokens = with_front(model, lambda body: output_of(body, last))
    return head, tokens


def _unsuitable(model, found):
    return ValueError(
        "A class activation map needs a model of this package that ends in the "
        "mean over the tokens and one `Dense` layer that is not quantized. Use "
        "`occlusion_map`, which works for other models too. "
        f"Received: model='{model.name}' with {found}"
    )
