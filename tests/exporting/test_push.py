"""What `push` writes, and where."""

import json
import resource
import signal
import sys

import keras
import numpy as np
import pytest

import keras_mixer
from support.cards import NAMES
from support.cards import files_in
from support.helpers import FAMILIES
from support.helpers import family_model
from support.helpers import matches
from support.helpers import outputs
from support.helpers import random_model
from support.helpers import randomise
from support.hub import TOKEN
from support.hub import Hub
from support.hub import Repository


@pytest.mark.parametrize("family", FAMILIES)
def test_files_hold_the_model_and_the_names(tmp_path, images, family):
    model = random_model(family)
    path = keras_mixer.push(model, tmp_path / "tiny", class_names=NAMES)
    assert path == str(tmp_path / "tiny")
    assert files_in(tmp_path) == ["tiny"]
    assert files_in(tmp_path / "tiny") == [
        "README.md",
        "class_names.json",
        "model.keras",
        "model.safetensors",
    ]
    names = (tmp_path / "tiny" / "class_names.json").read_text("utf-8")
    assert json.loads(names) == NAMES
    saved = keras.saving.load_model(tmp_path / "tiny" / "model.keras")
    np.testing.assert_array_equal(
        outputs(saved, images), outputs(model, images)
    )
    weights = tmp_path / "tiny" / "model.safetensors"
    loaded = family_model(family, weights=weights)
    np.testing.assert_array_equal(
        outputs(loaded, images), outputs(model, images)
    )


def test_compiled_model_is_saved_without_its_optimizer(tmp_path, images):
    """A dict of outputs stays a dict."""
    model = keras_mixer.new_head(random_model("mixer"), {"a": 3, "b": 4})
    randomise(model)
    model.compile("adam", "sparse_categorical_crossentropy")
    labels = {name: np.arange(len(images)) % 3 for name in "ab"}
    model.fit(images, labels, verbose=0)
    keras_mixer.push(model, tmp_path / "new")
    saved = keras.saving.load_model(tmp_path / "new" / "model.keras")
    assert not saved.compiled
    expected, received = model(images), saved(images)
    assert received.keys() == {"a", "b"}
    for name, value in expected.items():
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(received[name]),
            keras.ops.convert_to_numpy(value),
        )


OF_KERAS_2 = type("Model", (), {"__module__": "tf_keras.src.engine"})()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": 3}, TypeError, "`model` must be a Keras model, or the path"),
        (
            {"model": OF_KERAS_2},
            TypeError,
            "`model` ... a model of Keras 2. Use",
        ),
        ({"model": "nowhere"}, ValueError, "'nowhere' is not the folder of a"),
        ({"target": "gs://a/b"}, ValueError, "`target` must be a path on"),
        ({"target": 3}, TypeError, "`target` must be 'hf://organization/name'"),
        ({"target": "hf://me"}, ValueError, "A repository of the Hugging Face"),
        ({"target": "hf://a/b/c"}, ValueError, "A repository of the Hugging"),
        ({"target": "hf://a/b--c"}, ValueError, "A repository of the Hugging"),
        (
            {"target": "no/where"},
            FileNotFoundError,
            "The folder '...' does not",
        ),
        (
            {"target": "there"},
            FileExistsError,
            "'...there' exists. Use another",
        ),
        ({"best": True}, ValueError, "`best=True` is only for the folder"),
        ({"private": True}, ValueError, "`private=True` (`--private`) is"),
        ({"license": 3}, TypeError, "`license` must be an identifier"),
        ({"license": "My own"}, ValueError, "`license` must be an identifier"),
        ({"class_names": NAMES[1:]}, ValueError, "`class_names` must have one"),
        ({"class_names": "abcde"}, TypeError, "`class_names` must be a list"),
        (
            {"model": keras.Sequential([keras.Input((3,))])},
            ValueError,
            "`model` must be a model of this package",
        ),
    ],
)
def test_wrong_arguments_are_refused(
    tmp_path, tiny, monkeypatch, arguments, error, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    given = {"model": None, "target": "new", **arguments}
    if given["model"] is None:
        given["model"] = tiny()
    with pytest.raises(error, match=matches(message)):
        keras_mixer.push(given.pop("model"), given.pop("target"), **given)
    assert files_in(tmp_path) == ["there"]


def with_a_file(folder):
    (folder / "mine.txt").write_text("mine")


def of_someone_else(folder):
    (folder / "README.md").write_text("# My photos")


def without_a_model(folder):
    (folder / "model.keras").unlink()


def link_to_it(folder):
    folder.rename(folder.with_name("real"))
    folder.symlink_to(folder.with_name("real"))


@pytest.mark.parametrize(
    "change", [with_a_file, of_someone_else, without_a_model, link_to_it]
)
def test_folder_is_replaced_only_if_push_wrote_it(tmp_path, tiny, change):
    target = tmp_path / "new"
    keras_mixer.push(tiny(), target, class_names=NAMES)
    first = (target / "model.keras").read_bytes()
    keras_mixer.push(tiny(), target, overwrite=True)
    assert (target / "model.keras").read_bytes() != first
    assert "class_names.json" not in files_in(target)
    change(target)
    before = files_in(tmp_path), files_in(target)
    with pytest.raises(FileExistsError, match="so it is not replaced"):
        keras_mixer.push(tiny(), target, overwrite=True)
    assert (files_in(tmp_path), files_in(target)) == before


def test_full_disk_leaves_the_old_folder(tmp_path, tiny):
    keras_mixer.push(tiny(), tmp_path / "new")
    before = (tmp_path / "new" / "model.keras").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        with pytest.raises(OSError, match="could not be written: File too"):
            keras_mixer.push(tiny(), tmp_path / "new", overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    assert files_in(tmp_path) == ["new"]
    assert (tmp_path / "new" / "model.keras").read_bytes() == before


@pytest.mark.parametrize(
    "library", ["huggingface_hub", "jinja2", "safetensors"]
)
def test_missing_library_names_the_extra(tmp_path, tiny, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=r"pip install keras_mixer\[hub\]"):
        keras_mixer.push(tiny(), tmp_path / "new")
    assert files_in(tmp_path) == []


@pytest.fixture
def hub(monkeypatch, tmp_path):
    from huggingface_hub import constants

    hub = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    for name, value in (
        ("HF_ENDPOINT", hub.url),
        ("HF_TOKEN", TOKEN),
        ("HF_HOME", str(tmp_path / "hf")),
        ("KERAS_HOME", str(tmp_path / "keras")),
        ("no_proxy", "*"),
    ):
        monkeypatch.setenv(name, value)
    for name in ("OFFLINE", "WEIGHTS_URL"):
        monkeypatch.delenv(f"KERAS_MIXER_{name}", raising=False)
    yield hub
    hub.stop()


def test_repository_has_the_files_in_one_commit(hub, tmp_path, images, tiny):
    model = tiny(activation="relu")
    randomise(model)
    address = keras_mixer.push(model, "hf://me/tiny", private=True)
    assert address == f"{hub.url}/me/tiny"
    repository = hub.repositories["me/tiny"]
    file = tmp_path / "a.safetensors"
    file.write_bytes(repository.files["model.safetensors"])
    np.testing.assert_array_equal(
        outputs(tiny(weights=file), images), outputs(model, images)
    )
    assert repository.private
    assert repository.commits == 1
    text = repository.files["README.md"].decode()
    assert 'weights="hf://me/tiny"' in text
    assert 'hf_hub_download("me/tiny", "model.keras")' in text


def test_existing_repository_is_changed_only_if_asked(hub, tiny):
    hub.repositories["me/there"] = Repository(
        **{"notes.txt": b"mine", "config.json": b"old", "model.keras": b"old"}
    )
    with pytest.raises(FileExistsError, match="exists and contains files"):
        keras_mixer.push(tiny(), "hf://me/there")
    with pytest.raises(ValueError, match="exists and is public"):
        keras_mixer.push(tiny(), "hf://me/there", private=True, overwrite=True)
    assert hub.repositories["me/there"].commits == 0
    keras_mixer.push(tiny(), "hf://me/there", overwrite=True)
    repository = hub.repositories["me/there"]
    assert repository.commits == 1
    # The old configuration would describe another model.
    assert {*repository.files} == {
        ".gitattributes",
        "README.md",
        "model.keras",
        "model.safetensors",
        "notes.txt",
    }
    hub.repositories["me/empty"] = Repository()
    keras_mixer.push(tiny(), "hf://me/empty")
    assert hub.repositories["me/empty"].commits == 1


def test_push_without_access_explains_the_token(hub, tiny, monkeypatch):
    def refused(match):
        with pytest.raises(PermissionError, match=match):
            keras_mixer.push(tiny(), "hf://me/new")

    monkeypatch.setenv("HF_TOKEN", "hf_of_a_reader")
    refused(r"have not changed\. Log in with `hf auth login`")
    hub.refused = "/api/models/", 401
    refused(r"have not changed\. Log in with `hf auth login`")
    monkeypatch.delenv("HF_TOKEN")
    refused("`hf auth login`")
    assert hub.repositories == {}


def test_failed_upload_can_be_repeated(hub, tiny, monkeypatch):
    def fails(match):
        with pytest.raises(OSError, match=match):
            keras_mixer.push(tiny(), "hf://me/new")

    hub.refused = "/commit/", 418
    fails(r"(?s)Cannot push to 'me/new'.*have not changed\. Try again, or push")
    assert {*hub.repositories["me/new"].files} == {".gitattributes"}
    constants = "huggingface_hub.constants"
    for name, value in (
        ("HF_HUB_OFFLINE", True),
        ("ENDPOINT", "http://127.0.0.1:1"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"{constants}.{name}", value)
            fails("(?s)Cannot push to 'me/new'.*or push to a local folder")
    with monkeypatch.context() as patch:
        patch.setenv("KERAS_MIXER_OFFLINE", "1")
        fails("KERAS_MIXER_OFFLINE is set")
    hub.refused = None
    keras_mixer.push(tiny(), "hf://me/new")
    assert hub.repositories["me/new"].commits == 1
