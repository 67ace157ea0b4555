"""The scripts in `examples/`: as users run them, on real images."""

import re

import keras
import numpy as np
import pytest
from PIL import Image

import keras_mixer
from keras_mixer.labels import class_names
from support import published
from support.helpers import randomise
from support.helpers import run_example
from support.helpers import save_digits

RESULT = re.compile(
    r"Held-out accuracy: ([\d.]+) % on (\d+) images "
    r"\(after \d+ epochs?, \d+ s\)"
)


def lines(*call, **options):
    """What a script that succeeds prints."""
    result = run_example(*call, **options)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def accuracy(printed):
    """Percentage and number of images of the result, the last line."""
    percent, images = RESULT.fullmatch(printed[-1]).groups()
    return float(percent), int(images)


@pytest.fixture(scope="module")
def default_run(tmp_path_factory):
    """What `train.py` prints on its own data, and the folder it fills."""
    output = tmp_path_factory.mktemp("runs") / "new" / "train"
    return lines("train.py", "--output", output), output


def test_training_reaches_97_percent(default_run):
    printed, _ = default_run
    percent, images = accuracy(printed)
    assert images == 360
    assert percent >= 97


def test_training_shows_progress(default_run):
    printed, _ = default_run
    assert "Epoch 12/12" in printed


def test_training_saves_what_it_trained(default_run, digits):
    printed, output = default_run
    assert any("predicts exactly the same" in line for line in printed)
    # It was compiled for XLA, which on PyTorch would be another compiler.
    model = keras.models.load_model(output / "model.keras", compile=False)
    x, y = digits[1]
    assert np.mean(np.argmax(model.predict(x, verbose=0), 1) == y) >= 0.97


def test_training_draws_its_curves(default_run):
    file = default_run[1] / "curves.png"
    assert file.stat().st_size > 20_000
    with Image.open(file) as image:
        image.load()
        assert image.format == "PNG"
        assert len(image.getcolors(100_000)) > 2  # not an empty page


def test_classify_a_digit(default_run, digits, tmp_path):
    x, y = digits[1]
    save_digits(tmp_path / "digits", x[:2])
    photos = sorted((tmp_path / "digits").iterdir())
    weights = default_run[1] / "model.keras"
    printed = lines("classify.py", *photos, "--weights", weights)
    assert printed[0] == f"{photos[0]}:"
    assert printed[6] == f"{photos[1]}:"
    assert len(printed) == 12
    assert re.fullmatch(rf"class {y[0]}  \d+\.\d %", printed[1])


def test_classify_with_the_names_of_imagenet(tmp_path, digits):
    model = keras_mixer.MixerS32()
    randomise(model)
    model.save_weights(tmp_path / "s32.weights.h5")
    save_digits(tmp_path / "digits", digits[1][0][:1])
    photo = tmp_path / "digits" / "0.png"
    scores = model.predict(keras_mixer.load_image(photo, model), verbose=0)
    ((wnid, name, score),) = keras_mixer.mixer.decode_predictions(scores, 1)[0]

    options = ("--model", "MixerS32", "--weights", tmp_path / "s32.weights.h5")
    printed = lines("classify.py", photo, *options)
    expected = re.fullmatch(rf"{wnid} {name} (\d+\.\d) %", printed[1])
    assert float(expected[1]) == pytest.approx(100 * score, abs=0.2)


def test_classify_with_published_weights(tmp_path, digits, monkeypatch):
    """A tag, of which a file of the exact structure is in the cache."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_MIXER_OFFLINE", "1")
    published.put_into(tmp_path, "mixer_s32.imagenet_gsam")
    model = keras_mixer.MixerS32(weights="imagenet_gsam")
    save_digits(tmp_path / "digits", digits[1][0][:1])
    photo = tmp_path / "digits" / "0.png"
    image = keras_mixer.load_image(photo, model, 224 / 256, "area")
    scores = model.predict(image, verbose=0)
    ((wnid, name, score),) = keras_mixer.mixer.decode_predictions(scores, 1)[0]

    options = ("--model", "MixerS32", "--weights", "imagenet_gsam")
    printed = lines("classify.py", photo, *options)
    expected = re.fullmatch(rf"{wnid} {name} (\d+\.\d) %", printed[1])
    assert float(expected[1]) == pytest.approx(100 * score, abs=0.2)


def test_classify_says_that_a_model_is_untrained(tmp_path, digits):
    save_digits(tmp_path / "digits", digits[1][0][:1])
    photo = tmp_path / "digits" / "0.png"
    result = run_example("classify.py", photo, "--model", "MixerS32")
    assert result.returncode == 0, result.stderr
    assert "Warning: without --weights the model is untrained" in result.stderr
    assert len(result.stdout.splitlines()) == 6


def test_resolution_compares_every_method():
    options = ("--images", "120", "--epochs", "1")
    # On the backend that compiles least, of six models.
    _, _, *table = lines("resolution.py", *options, backend="torch")
    rows = [line.split(" | ")[0] for line in table[2:]]
    assert rows == [
        "| not resized",
        "| tile",
        "| interleave",
        "| interpolate",
        "| from scratch, epochs: 1",
        "| from scratch, epochs: 2",
    ]


def percents(printed):
    """Of the pixels and of the features."""
    return [float(re.search(r"([\d.]+) %$", line)[1]) for line in printed]


def test_features_beat_pixels(default_run):
    weights = default_run[1] / "model.keras"
    pixels, features = percents(lines("features.py", "--weights", weights))
    assert features > max(pixels, 95)


def test_features_of_photos_tell_digits():
    _, features = percents(lines("features.py"))
    assert features > 85


def test_classify_needs_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_MIXER_OFFLINE", "1")
    Image.effect_noise((60, 40), 90).save(tmp_path / "photo.png")
    printed = lines("classify.py", tmp_path / "photo.png")
    names = [name for _, name in class_names(10)]
    assert {line.split()[1] for line in printed[1:]} < set(names)
