"""Loads a photo as a batch of one image, with Pillow.

A photo is resized and cropped in one step: only the box that the crop would
keep is resampled. The result is that of "resize the short side to 256, then
crop 224 from the center", except that the intermediate size is not rounded. It
works for rectangles too. A photo of 1 x 1,000,000 pixels is not enlarged to
256 x 256,000,000 pixels first.
"""

import contextlib
import io
import numbers
import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_mixer.arguments import check_crop_ratio
from keras_mixer.arguments import check_local_path
from keras_mixer.optional import require

# Evaluation of the published Mixers: 224 cropped from 256. Source:
# `big_vision/configs/mlp_mixer_i1k.py`, `resize_small(256)|central_crop(224)`.
CROP_RATIO = 224 / 256


INTERPOLATION = "bilinear"


# Larger images raise an error before they are decoded. Pillow's own limit is
# 179 million pixels, but it can be raised.
MAX_PIXELS = 200_000_000

# The names of interpolations here, in Pillow and in TensorFlow's
# `ScaleAndTranslate`, which has no "nearest".
INTERPOLATIONS = {
    "nearest": ("NEAREST", None),
    "area": ("BOX", "box"),
    "bilinear": ("BILINEAR", "triangle"),
    "bicubic": ("BICUBIC", "keyscubic"),
    "lanczos": ("LANCZOS", "lanczos3"),
}


def load_image(
    file: Any,
    model: keras.Model | Sequence[int],
    crop_ratio: float = CROP_RATIO,
    interpolation: str = INTERPOLATION,
) -> np.ndarray:
    """Loads a photo as a batch of one image for `model`.

    The photo is rotated as in its EXIF data, and converted to RGB or gray as
    the model expects; transparent pixels are blended with white. Then it is
    resized with antialiasing and cropped around its center to the size of the
    model's input. The aspect ratio does not change.

    Source: the evaluation of the official Mixers, `resize_small(256)` and
    `central_crop(224)` in google-research/big_vision.

    Args:
        file: The photo, as one of:

            - the path of an image file;
            - a binary file object that can seek;
            - `bytes`, the content of an image file;
            - a `PIL.Image.Image`, which is not changed;
            - a uint8 array of shape `(height, width)` or `(height, width, 1)`
              for gray, `(height, width, 3)` for RGB or `(height, width, 4)` for
              RGBA. OpenCV returns BGR: pass `array[..., ::-1]`.
        model: A Keras model with one input, images of 1 or 3 channels. Or the
            shape of these images, `(height, width, channels)`, for a model
            that Keras does not run, such as an exported file.
        crop_ratio: Float in (0, 1], the fraction to keep of the height and
            width of the largest centered box with the aspect ratio of the
            input. The default is 224/256.
        interpolation: One of `"nearest"`, `"bilinear"`, `"bicubic"`,
            `"lanczos"` and `"area"`.

    Returns:
        A float32 array of shape `(1, height, width, channels)` with values in
        [0, 255], or of shape `(1, channels, height, width)` where
        `keras.config.image_data_format()` is `"channels_first"`. A model built
        with `include_preprocessing=False` expects these scaled to [-1, 1].

    Raises:
        OSError: If the file does not exist or cannot be opened.
        ValueError: If the file is not an image, is truncated, has no defined
            range of values or too many pixels (Pillow's limit of 179 million,
            or 200 million if that limit was raised); if an array has another
            shape or dtype; if the model has another kind of input; or if an
            argument has a wrong value.
        TypeError: If an argument has the wrong type.
        ImportError: If Pillow is not installed.

    Example:

    >>> import io
    >>> from PIL import Image
    >>> import keras_mixer
    >>> photo = io.BytesIO()
    >>> Image.new("RGB", (640, 480), "teal").save(photo, "png")
    >>> model = keras_mixer.MixerS32(weights=None)
    >>> keras_mixer.load_image(photo, model).shape
    (1, 224, 224, 3)
    >>> keras_mixer.load_image(photo, (64, 96, 1)).shape
    (1, 64, 96, 1)
    """
    image_module = require("PIL.Image")
    check_local_path("file", file)
    _check_photo(image_module, file)
    check_interpolation(interpolation)
    check_crop_ratio(crop_ratio)
    height, width, channels = _input_image_shape(model)
    try:
        image = upright(file, channels)
    except ValueError as error:
        is_path = isinstance(file, (str, os.PathLike))
        received = f"'{file}'" if is_path else f"file={type(file).__name__}"
        raise ValueError(
            "Expected an image file that Pillow can read. "
            f"Received: {received}: {error}"
        ) from error
    step, (top, left) = centered_box(
        (image.height, image.width), (height, width), crop_ratio
    )
    box = (left, top, left + step * width, top + step * height)
    name, _ = INTERPOLATIONS[interpolation]
    resampling = image_module.Resampling[name]
    image = image.resize((width, height), resampling, box=box)
    pixels = np.asarray(image, "float32").reshape(1, height, width, channels)
    if keras.config.image_data_format() == "channels_first":
        return pixels.transpose(0, 3, 1, 2)
    return pixels


def check_interpolation(value):
    """Raises an error if `value` is not the name of an interpolation."""
    if value not in list(INTERPOLATIONS):
        raise ValueError(
            f"`interpolation` must be one of {sorted(INTERPOLATIONS)}. "
            f"Received: interpolation={value!r}"
        )


def _input_image_shape(model):
    if isinstance(model, (list, tuple)):
        shapes = [(None, *model)]
    else:
        # Not `input_shape`: it is a list if the model was built from a list.
        inputs = getattr(model, "inputs", None) or []
        shapes = [tuple(tensor.shape) for tensor in inputs]
    if len(shapes) == 1 and len(shapes[0]) == 4:
        _, *image_shape = shapes[0]
        if keras.config.image_data_format() == "channels_first":
            image_shape = image_shape[1:] + image_shape[:1]
        height, width, channels = image_shape
        sides = (height, width)
        if channels in (1, 3) and all(_is_side(side) for side in sides):
            return height, width, channels
    raise ValueError(
        "`model` must be a Keras model with one input: images of a fixed size "
        "with 1 or 3 channels, or the shape of such images, in the data format "
        f"'{keras.config.image_data_format()}'. "
        f"Received: model={model!r} with inputs of shapes {shapes}"
    )


def _is_side(value):
    return isinstance(value, numbers.Integral) and value > 0


def _check_photo(image_module, photo):
    """Checks the type of a photo before anything is read."""
    if isinstance(photo, np.ndarray):
        _check_array(photo)
    elif not isinstance(
        photo, (str, os.PathLike, *_BYTES, image_module.Image)
    ) and not hasattr(photo, "read"):
        raise TypeError(
            "`file` must be a path, a binary file object, bytes, a Pillow "
            "image or a NumPy array. "
            f"Received: file of type {type(photo).__name__}"
        )


_BYTES = (bytes, bytearray, memoryview)


def _check_array(array):
    is_image = array.ndim == 2 or (
        array.ndim == 3 and array.shape[2] in (1, 3, 4)
    )
    if array.dtype != "uint8" or not is_image or not array.size:
        raise ValueError(
            "An array must be of dtype uint8, with values in [0, 255], and of "
            "shape (height, width), (height, width, 1), (height, width, 3) or "
            f"(height, width, 4). Received: shape={array.shape}, "
            f"dtype={array.dtype}{_ADVICE.get(array.dtype.kind, '')}"
        )


# How to convert an array, by the kind of its dtype.
_ADVICE = {
    "b": ". Use `255 * array.astype('uint8')`",
    "f": ". Convert values in [0, 1] with "
    "`(255 * array).round().astype('uint8')`",
    "i": ". Scale the values so that white is 255",
    "u": ". Scale the values so that white is 255: for 16 bits, use "
    "`(array / 257).round().astype('uint8')`",
}


def upright(photo, channels):
    """Reads a photo as an upright 8-bit Pillow image.

    Args:
        photo: As in `load_image`.
        channels: 1 or 3.

    Returns:
        A `PIL.Image.Image` of mode "L" or "RGB". Transparent pixels are blended
        with white.

    Raises:
        OSError: If the file does not exist or cannot be opened.
        ValueError: If Pillow cannot read it. The message is the reason, without
            the name of the file.
        ImportError: If Pillow is not installed.
    """
    image_module = require("PIL.Image")
    try:
        with _opened(image_module, photo) as image:
            is_decoded = isinstance(photo, np.ndarray)
            if image.width * image.height > MAX_PIXELS and not is_decoded:
                raise image_module.DecompressionBombError(
                    f"it has {image.width} x {image.height} pixels, more than "
                    f"{MAX_PIXELS}"
                )
            return _flatten(image_module, image, channels)
    except (
        FileNotFoundError,
        IsADirectoryError,
        MemoryError,
        PermissionError,
    ):
        raise
    except image_module.UnidentifiedImageError as error:
        # Pillow's message has the path of the file or the address of an object.
        raise ValueError(
            "the file is empty"
            if _is_empty(photo)
            else "cannot identify image file: the format is unknown to Pillow"
        ) from error
    # On damaged files, Pillow can raise almost any exception.
    except Exception as error:
        raise ValueError(f"{error or type(error).__name__}") from error


def _is_empty(photo):
    """Returns whether a path, a file object or bytes have no content."""
    if isinstance(photo, _BYTES):
        return not len(photo)
    if isinstance(photo, (str, os.PathLike)):
        return not os.path.getsize(photo)
    return not photo.seek(0, os.SEEK_END)


def _opened(image_module, photo):
    """Returns a Pillow image as a context manager that closes the file."""
    if isinstance(photo, np.ndarray):
        array = photo[..., 0] if photo.shape[2:] == (1,) else photo
        return image_module.fromarray(np.ascontiguousarray(array))
    if isinstance(photo, image_module.Image):
        # It stays open: the caller may use it again.
        return contextlib.nullcontext(photo)
    if isinstance(photo, _BYTES):
        photo = io.BytesIO(photo)
    return image_module.open(photo)


def is_turned(data):
    """Returns whether an image must be rotated, as in its EXIF data.

    Args:
        data: `bytes`, the content of an image file.
    """
    # Most files have none of these names, and searching is much faster than
    # parsing. They are: EXIF in JPEG and WebP, EXIF in PNG (two forms), XMP.
    names = (b"Exif\0\0", b"eXIf", b"Raw profile type", b"tiff:Orientation")
    if not any(name in data for name in names):
        return False
    image_module = require("PIL.Image")
    try:
        with image_module.open(io.BytesIO(data)) as image:
            return image.getexif().get(0x0112) in range(2, 9)
    # On damaged files, Pillow can raise almost any exception. The error is
    # reported when the file is decoded.
    except Exception:
        return False


def _flatten(image_module, image, channels):
    image_ops = require("PIL.ImageOps")

    # Pillow scales the values of a PGM with more than 8 bits to 16 bits.
    is_16_bit = image.mode.startswith("I;16") or image.format == "PPM"
    image = image_ops.exif_transpose(image)
    if is_16_bit and image.mode.startswith("I"):
        # `convert` would clip values above 255.
        levels = np.asarray(image).astype("float32") / 257
        image = image_module.fromarray(levels.round().astype("uint8"))
    if image.mode in ("I", "F"):
        raise ValueError(
            f"the mode '{image.mode}' does not define which value is white; "
            "convert the image to 8 or 16 bits"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = image_module.new("RGBA", image.size, "white")
        image = image_module.alpha_composite(white, image)
    return image.convert("RGB" if channels == 3 else "L")


def centered_box(size, target, crop_ratio, minimum=min):
    """Finds the box in the center of an image to resize to `target`.

    Args:
        size: Height and width of the image, numbers or tensors.
        target: Height and width of the result.
        crop_ratio: Float in (0, 1].
        minimum: Function that returns the smaller of two sides.

    Returns:
        Pixels of the image per pixel of the result, and the position of the
        upper left corner, `(top, left)`.
    """
    step = crop_ratio * minimum(size[0] / target[0], size[1] / target[1])
    corner = [
        (side - step * new) / 2 for side, new in zip(size, target, strict=True)
    ]
    return step, corner
