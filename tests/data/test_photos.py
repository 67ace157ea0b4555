"""`load_image`: rotation, colors, size, and errors."""

import io

import keras
import numpy as np
import pytest
from PIL import Image

import keras_mixer
from keras_mixer.data import photos
from support.helpers import matches

RED, GREEN = (200, 30, 40), (20, 180, 60)


def model_for(*shape):
    return keras.Sequential([keras.Input(shape), keras.layers.Flatten()])


def halves(width=60, height=40):
    """A photo whose left half is red and right half green."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(GREEN, (width // 2, 0, width, height))
    return image


def as_file(image, kind="png", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def load(image, shape=(8, 12, 3), kind="png", save=None, **options):
    file = as_file(image, kind, **(save or {}))
    return keras_mixer.load_image(file, model_for(*shape), **options)


def assert_halves(pixels, atol=1, left=RED, right=GREEN):
    height = pixels.shape[1]
    np.testing.assert_allclose(
        pixels[0, :, 0], np.full((height, 3), left), atol=atol
    )
    np.testing.assert_allclose(
        pixels[0, :, -1], np.full((height, 3), right), atol=atol
    )


def test_crop_is_central_and_keeps_the_aspect_ratio():
    # 200 x 100, a white frame of 6 pixels; to a square: columns 50 to 150.
    image = Image.new("L", (200, 100), 255)
    image.paste(0, (6, 6, 194, 94))
    full = load(image, (10, 10, 1), crop_ratio=1.0, interpolation="area")[0]
    assert full.shape == (10, 10, 1)
    np.testing.assert_allclose(full[0, :, 0], 255 * 0.6, atol=1)
    np.testing.assert_allclose(full[1:-1, 0, 0], 0, atol=1)
    assert load(image, (10, 10, 1), interpolation="area").max() == 0


def test_default_crop_is_224_from_256():
    """Compares with the two steps of the official evaluation."""
    # The resized image has sides that are whole numbers: 384 by 256.
    noise = np.random.default_rng(0).integers(0, 256, (320, 480, 3), "uint8")
    noise = Image.fromarray(noise)
    resized = noise.resize((384, 256), Image.Resampling.BILINEAR)
    expected = np.asarray(resized.crop((80, 16, 304, 240)), "float32")
    np.testing.assert_allclose(load(noise, (224, 224, 3))[0], expected, atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    """A camera stores the photo transposed, with the orientation tag."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = halves()
    if orientation in undo:
        stored = stored.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = load(stored, kind="jpeg", save={"exif": exif, "quality": 95})
    assert_halves(pixels, atol=6)


def test_gray_and_color_are_converted_to_each_other():
    gray = load(Image.new("L", (30, 20), 77))
    np.testing.assert_array_equal(gray, np.full((1, 8, 12, 3), 77))
    luma = load(Image.new("RGB", (30, 20), RED), (8, 12, 1))
    # The weights of ITU-R 601-2, as in Pillow.
    expected = round(0.299 * 200 + 0.587 * 30 + 0.114 * 40)
    np.testing.assert_allclose(luma, np.full((1, 8, 12, 1), expected), atol=1)


@pytest.mark.parametrize("kind", ["png", "tiff", "ppm"])
def test_16_bit_gray_is_scaled_to_8_bits(kind):
    levels = np.full((20, 30), 77 * 257, "uint16")
    pixels = load(Image.fromarray(levels), kind=kind)
    np.testing.assert_array_equal(pixels, np.full((1, 8, 12, 3), 77))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("P", "png"), ("P", "gif"), ("CMYK", "tiff"), ("CMYK", "jpeg"),
     ("1", "png"), ("LA", "png")],
)  # fmt: skip
def test_other_modes_are_converted(mode, kind):
    is_gray = mode in ("1", "LA")
    left, right = ((255,) * 3, (0,) * 3) if is_gray else (RED, GREEN)
    image = Image.new("RGB", (60, 40), left)
    image.paste(right, (30, 0, 60, 40))
    image = image.convert("L").convert(mode) if is_gray else image.convert(mode)
    assert Image.open(as_file(image, kind)).mode == mode
    assert_halves(load(image, kind=kind), 8, left, right)


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_transparent_pixels_are_blended_with_white(kind):
    image = halves().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    image.paste((*RED, 255), (0, 0, 30, 40))
    pixels = load(image, kind=kind, save={"lossless": True})
    assert_halves(pixels, right=(255, 255, 255))


def test_transparent_palette_is_blended_with_white():
    image = halves().quantize(4)
    hidden = image.getpixel((59, 0))
    pixels = load(image, kind="gif", save={"transparency": hidden})
    assert_halves(pixels, atol=8, right=(255, 255, 255))


def test_paths_files_and_their_content_are_read(tmp_path):
    path = tmp_path / "photo.png"
    halves().save(path)
    content = path.read_bytes()
    model = model_for(8, 12, 3)
    expected = keras_mixer.load_image(path, model)
    with path.open("rb") as opened:
        for file in (str(path), opened, content, bytearray(content),
                     memoryview(content)):  # fmt: skip
            np.testing.assert_array_equal(
                keras_mixer.load_image(file, model), expected
            )


def test_the_shape_of_the_images_replaces_the_model():
    for shape in ((8, 12, 3), [5, 6, 1], tuple(np.array([7, 4, 3]))):
        pixels = keras_mixer.load_image(as_file(halves()), shape)
        np.testing.assert_array_equal(pixels, load(halves(), tuple(shape)))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK"])
def test_pillow_images_are_read_and_not_changed(mode):
    image = halves().convert(mode)
    model = model_for(8, 12, 3)
    pixels = keras_mixer.load_image(image, model)
    expected = keras_mixer.load_image(as_file(image, "tiff"), model)
    np.testing.assert_array_equal(pixels, expected)
    assert image.mode == mode
    assert image.tobytes() == halves().convert(mode).tobytes()
    # The image is still open.
    np.testing.assert_array_equal(keras_mixer.load_image(image, model), pixels)


def test_opened_pillow_image_is_rotated():
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = halves().transpose(Image.Transpose.ROTATE_90)
    with Image.open(as_file(stored, "png", exif=exif)) as image:
        pixels = keras_mixer.load_image(image, model_for(8, 12, 3))
    assert pixels.shape == (1, 8, 12, 3)
    assert pixels.dtype == "float32"
    assert_halves(pixels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("shape", "mode"),
    [
        ((40, 60), "L"),
        ((40, 60, 1), "L"),
        ((40, 60, 3), "RGB"),
        ((40, 60, 4), "RGBA"),
        ((3, 4), "L"),
        ((4, 1), "L"),
        ((40, 4, 3), "RGB"),
    ],
)
def test_arrays_equal_the_same_pillow_images(shape, mode, channels):
    array = np.random.default_rng(0).integers(0, 256, shape, "uint8")
    squeezed = array[..., 0] if array.shape[2:] == (1,) else array
    image = Image.fromarray(squeezed)
    assert image.mode == mode
    model = model_for(8, 12, channels)
    received = keras_mixer.load_image(array, model)
    expected = keras_mixer.load_image(as_file(image), model)
    np.testing.assert_array_equal(received, expected)


def test_reversed_views_of_opencv_arrays_are_read():
    bgr = np.asarray(halves())[..., ::-1].copy()
    model = model_for(8, 12, 3)
    assert_halves(keras_mixer.load_image(bgr, model), left=RED[::-1],
                  right=GREEN[::-1])  # fmt: skip
    assert_halves(keras_mixer.load_image(bgr[..., ::-1], model))


@pytest.mark.parametrize(
    ("shape", "dtype", "advice"),
    [
        ((40, 60, 3), "float64", "(255 * array).round()"),
        ((40, 60), "uint16", "for 16 bits, use `(array / 257).round()"),
        ((40, 60), "int32", "Scale the values so that white is 255"),
        ((40, 60), "bool", "255 * array.astype"),
        ((40, 60, 2), "uint8", ""),
        ((3, 40, 60), "uint8", ""),
        ((1, 40, 60, 3), "uint8", ""),
        ((40, 0, 3), "uint8", ""),
        ((40,), "uint8", ""),
    ],
)
def test_wrong_arrays_raise_errors(shape, dtype, advice):
    message = (
        f"must be of dtype uint8...shape={shape}, dtype={dtype}...{advice}"
    )
    with pytest.raises(ValueError, match=matches("..." + message)) as raised:
        keras_mixer.load_image(np.zeros(shape, dtype), model_for(8, 12, 3))
    assert "255 *" not in str(raised.value) or dtype in ("float64", "bool")


@pytest.mark.parametrize(
    ("photo", "error", "message"),
    [
        (None, TypeError, "Received: file of type NoneType$"),
        ([[1, 2], [3, 4]], TypeError, "Received: file of type list$"),
        (b"photo.jpg", ValueError, "file=bytes: cannot identify"),
        ("missing.jpg", FileNotFoundError, r"missing\.jpg"),
        ("https://host/photo.jpg", ValueError, "`file` must be a path on this"),
    ],
)
def test_what_is_no_photo_raises_an_error(photo, error, message):
    with pytest.raises(error, match=message):
        keras_mixer.load_image(photo, model_for(8, 12, 3))


def test_extreme_aspect_ratio_does_not_need_more_memory():
    pixels = load(Image.new("RGB", (60_000, 2), RED), (224, 224, 3))
    np.testing.assert_array_equal(pixels[0, 0, 0], RED)


def test_channels_first_is_supported():
    expected = load(halves()).transpose(0, 3, 1, 2)
    keras.config.set_image_data_format("channels_first")
    try:
        np.testing.assert_array_equal(load(halves(), (3, 8, 12)), expected)
    finally:
        keras.config.set_image_data_format("channels_last")


def truncated():
    noise = np.random.default_rng(0).integers(0, 256, (90, 90, 3), "uint8")
    data = as_file(Image.fromarray(noise), "jpeg").getvalue()
    return io.BytesIO(data[: len(data) // 2])


def declaring(width, height):
    """Returns a PNG of a few bytes, whose header has this size."""
    import struct
    import zlib

    data = bytearray(as_file(Image.new("L", (1, 1))).getvalue())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return io.BytesIO(bytes(data))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (lambda: io.BytesIO(b""), "the file is empty"),
        (lambda: io.BytesIO(b"no image at all"), "cannot identify image file"),
        (truncated, "truncated"),
        (lambda: declaring(20_000, 10_001), "exceeds limit|more than 2000000"),
        (
            lambda: as_file(Image.new("F", (4, 4)), "tiff"),
            "'F' does not define which value is white",
        ),
    ],
)
def test_files_that_are_not_images_raise_errors(file, reason):
    expected = f"^Expected an image file that Pillow can read.*({reason})"
    with pytest.raises(ValueError, match=expected):
        keras_mixer.load_image(file(), model_for(8, 12, 3))


def test_pixel_limit_applies_without_pillows_limit(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(photos, "_flatten", pytest.fail)
    with pytest.raises(ValueError, match="20000 x 10001 pixels, more than"):
        keras_mixer.load_image(declaring(20_000, 10_001), model_for(8, 12, 3))


@pytest.mark.parametrize(
    "model",
    [
        None,
        model_for(8, 12),
        model_for(None, None, 3),
        model_for(8, 12, 4),
        (8, 12),
        (8, 12, 4),
        (0, 12, 3),
        ("height", 12, 3),
        (1, 8, 12, 3),
    ],
)
def test_models_with_wrong_inputs_raise_errors(model):
    with pytest.raises(ValueError, match="`model` must be a Keras model with"):
        keras_mixer.load_image(as_file(halves()), model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_ratio": 0}, r"`crop_ratio` must be in \(0, 1\]"),
        ({"crop_ratio": 1.1}, r"`crop_ratio` must be in \(0, 1\]"),
        ({"interpolation": "cubic"}, "`interpolation` must be one of"),
        ({"interpolation": ["bilinear"]}, "`interpolation` must be one of"),
    ],
)
def test_wrong_arguments_of_load_image_raise_errors(options, message):
    with pytest.raises(ValueError, match=message):
        load(halves(), **options)
