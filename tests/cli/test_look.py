"""`python -m keras_mixer look`: the page, and errors that write nothing."""

import html.parser
import re
import shutil
import types

import keras
import numpy as np
import pytest
from PIL import Image

import keras_mixer
from keras_mixer import cli
from keras_mixer import training
from keras_mixer.cli import models
from support.helpers import family_model
from support.helpers import randomise

VOID = {"img", "link", "meta"}


class _Parser(html.parser.HTMLParser):
    """Collects the images, texts and tags, and checks that tags are closed."""

    def __init__(self):
        super().__init__()
        self.open, self.images, self.tags, self.texts = [], [], set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def parse(path):
    """Returns the images, the text and the tags of a page."""
    parser = _Parser()
    parser.feed(path.read_text("utf-8"))
    parser.close()
    assert parser.open == []
    return types.SimpleNamespace(
        images=parser.images, text=" ".join(parser.texts), tags=parser.tags
    )


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A photo whose name has characters that HTML must escape."""
    path = tmp_path_factory.mktemp("photo") / "a <i>photo & more.png"
    Image.effect_mandelbrot((50, 40), (-2, -1, 1, 1), 90).save(path)
    return path


@pytest.fixture(scope="module")
def page(run, photo, tmp_path_factory):
    """The page of a training with a photo and a report."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    cli.main(["evaluate", "--run", str(run)])
    cli.main(["look", str(run), str(photo), "--output", str(path)])
    return path


def looked(tmp_path, *arguments):
    path = tmp_path / "page.html"
    cli.main(["look", *map(str, arguments), "--output", str(path)])
    return parse(path)


def test_page_of_a_training_has_all_parts(page, run, photo):
    parsed = parse(page)
    alternatives = [image["alt"] for image in parsed.images]
    blocks = [f"Weights of token mixing in block {i}" for i in range(8)]
    best = alternatives[1].removeprefix("Class activation map of ")
    best = best.removesuffix(f" over the photo {photo.name}")
    names = training.read_run(run)["data"]["class_names"]
    assert best in names
    assert alternatives == [
        f"The photo {photo.name}",
        f"Class activation map of {best} over the photo {photo.name}",
        f"Occlusion map of {best} over the photo {photo.name}",
        *blocks,
        "Curves of the training over 2 epochs",
        "Confusion matrix of the test images",
    ]
    for text in (
        f"the training in '{run}'",
        "8 x 8 x 3",
        "2 x 2, with 128 channels",
        f"3: {', '.join(names)}",
        photo.name,
        "After 2 epochs: accuracy ",
    ):
        assert text in parsed.text
    accuracy = training.read_run(run)["finished"]["accuracy"]
    assert f"{100 * accuracy:.2f} %" in parsed.text


def test_page_shows_what_the_model_computes(page, run, photo):
    parsed = parse(page)
    loaded = models.load(run)
    image = keras_mixer.load_image(photo, loaded.model, **loaded.evaluation)
    for score in loaded.model.predict_on_batch(image)[0]:
        assert f"{100 * score:.1f} %" in parsed.text
        assert f"width: {100 * score:.1f}%" in page.read_text("utf-8")
    parameters = sum(np.prod(w.shape) for w in loaded.model.weights)
    assert f"{parameters:,}" in parsed.text
    gmacs = sum(keras_mixer.macs(loaded.model).values()) / 1e9
    assert f"{gmacs:.3g}" in parsed.text


def test_page_needs_nothing_else(page):
    text = page.read_text("utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert "default-src 'none'" in text
    assert not re.search(r"<script|https?:|url\(|@import|[\"'(=]//", text)
    parsed = parse(page)
    assert parsed.tags.isdisjoint({"script", "link", "iframe", "b", "i"})
    assert all(
        image["alt"] and image["src"].startswith("data:image/png;base64,")
        for image in parsed.images
    )


def test_report_of_another_model_is_not_shown(page, run, tmp_path):
    """As after a training that was continued, and for the best epoch."""
    other = tmp_path / "run"
    shutil.copytree(run, other)
    keras.saving.load_model(other / "model.keras").save(other / "model.keras")
    for options in ([], ["--best"]):
        parsed = looked(tmp_path, other, *options)
        command = " ".join(["evaluate --run", str(other), *options])
        assert f"keras_mixer {command}" in parsed.text
        alternatives = [image["alt"] for image in parsed.images]
        assert alternatives[-1].startswith("Curves")
        (tmp_path / "page.html").unlink()


@pytest.mark.parametrize(
    "name", ["MixerNano", "mixer_nano", "MixerNano.cifar10"]
)
def test_published_weights_are_named_in_several_ways(name):
    loaded = models.load(name)
    assert loaded.origin == "weights 'mixer_nano.cifar10'"
    assert loaded.class_names[3] == "cat"


def test_file_of_a_fused_model_without_softmax(photo, tmp_path):
    model = family_model("resmlp", classifier_activation=None)
    randomise(model)
    keras_mixer.fuse(model).save(tmp_path / "fused.keras")
    parsed = looked(tmp_path, tmp_path / "fused.keras", photo)
    assert len(parsed.images) == 3 + 2
    logits = model.predict_on_batch(keras_mixer.load_image(photo, model))[0]
    scores = np.exp(logits.astype("float64"))
    scores /= scores.sum()
    assert f"{100 * scores.max():.1f} %" in parsed.text
    assert f"class {scores.argmax()}" in parsed.text


def test_logits_between_0_and_1_are_no_probabilities(photo, tmp_path):
    """The head of a new Mixer is zero."""
    model = family_model("mixer", classifier_activation=None)
    model.save(tmp_path / "new.keras")
    parsed = looked(tmp_path, tmp_path / "new.keras", photo)
    assert parsed.text.count("20.0 %") == 5


def test_file_of_another_model(photo, tmp_path):
    image = keras.Input((8, 12, 3), dtype="float32")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    scores = keras.layers.Dense(3, activation="softmax")(x)
    keras.Model(image, scores).save(tmp_path / "other.keras")
    parsed = looked(tmp_path, tmp_path / "other.keras", photo)
    assert len(parsed.images) == 2
    assert "There is no class activation map." in parsed.text
    assert "The weights cannot be shown." in parsed.text
    # The names of the classes are unknown, and `export` writes none.
    assert models.load(tmp_path / "other.keras").class_names is None


def test_large_models_show_some_of_their_blocks(tmp_path):
    model = keras_mixer.ResMLP(
        4, 15, 6, 7, 0.1, input_shape=(8, 8, 3), classes=2
    )
    model.save(tmp_path / "deep.keras")
    parsed = looked(tmp_path, tmp_path / "deep.keras")
    numbers = [int(image["alt"].split()[-1]) for image in parsed.images]
    assert len(numbers) == 12
    assert numbers == sorted(set(numbers))
    assert (numbers[0], numbers[-1]) == (0, 14)
    assert "12 of 15 blocks are shown." in parsed.text


def refused(capsys, *arguments):
    """Returns the error message of a command."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["look", *map(str, arguments)])
    assert capsys.readouterr().out == ""
    assert caught.value.code.startswith("keras_mixer: ")
    return caught.value.code


def test_errors_write_nothing(capsys, photo, run, tmp_path):
    output = tmp_path / "page.html"
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "broken.keras").write_bytes(b"no model")
    (tmp_path / "weights.npz").write_bytes(b"no model")
    (tmp_path / "empty").mkdir()
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "best.keras").unlink()
    shutil.copytree(run, tmp_path / "unfinished")
    record = training.read_run(run)
    del record["finished"]
    training.runs.write_json(tmp_path / "unfinished" / "run.json", record)
    for name, options in (
        ("headless", {"include_top": False}),
        ("tanh", {"classifier_activation": "tanh"}),
    ):
        family_model("mixer", **options).save(tmp_path / f"{name}.keras")
    before = sorted(tmp_path.rglob("*"))
    for arguments, message in (
        (["MixerNano", tmp_path / "text.jpg"], "Expected an image file"),
        (["MixerNano", photo, tmp_path / "none.jpg"], "No such file"),
        ([tmp_path / "empty"], "is not the folder of a training"),
        ([tmp_path / "unfinished"], "is not finished: repeat its command"),
        ([tmp_path / "run", "--best"], "A training keeps it if it is started"),
        ([tmp_path / "broken.keras"], "Cannot load the model"),
        ([tmp_path / "weights.npz"], "must be a `.keras` file"),
        ([tmp_path / "headless.keras", photo], "one vector with a score"),
        ([tmp_path / "tanh.keras", photo], "must be a softmax or a sigmoid"),
        (["https://host/m.keras"], "`model` must be a path on this machine"),
        (["MixerNano", "--best"], "`--best` is for the model of a training"),
        (["MixerB17"], "such as MixerNano or one of: mixer_b16.imagenet,"),
        (["MixerB16.cifar10"], "Received: 'MixerB16.cifar10'"),
        (["MixerH14"], "Received: 'MixerH14'"),
        (["resmlp_s12.imagenet_dino"], "Received: 'resmlp_s12.imagenet_dino'"),
    ):
        assert message in refused(capsys, *arguments, "--output", output)
    for path in (tmp_path / "none" / "page.html", tmp_path / "empty"):
        message = refused(capsys, run, "--output", path)
        assert "the path of a file in an existing folder" in message
    assert sorted(tmp_path.rglob("*")) == before


def test_only_pages_are_replaced(capsys, tmp_path):
    model, output = tmp_path / "tiny.keras", tmp_path / "page.html"
    family_model("mixer").save(model)
    output.write_text("old")
    message = refused(capsys, model, "--output", output, "--overwrite")
    assert "exists, and `look` did not write it" in message
    assert output.read_text() == "old"
    output.unlink()
    cli.main(["look", str(model), "--output", str(output)])
    capsys.readouterr()
    message = refused(capsys, "MixerNano", "--output", output)
    assert message.endswith("or `--overwrite` to replace it.")
    cli.main(["look", "MixerNano", "--output", str(output), "--overwrite"])
    assert "mixer_nano.cifar10" in output.read_text("utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "page.html",
        "tiny.keras",
    ]
