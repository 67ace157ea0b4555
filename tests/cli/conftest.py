"""A training that the tests of the commands share, and a disk that is full."""

import contextlib
import json
import resource
import shutil

import pytest

from keras_mixer import cli
from support.helpers import save_digits
from support.helpers import split_digits
from support.training import RECIPE
from support.training import with_state

# The first name has characters that HTML must escape.
CLASSES = ("<b>&amp; digit", "four", "six")


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The folder of a short training whose model makes mistakes.

    Its images are beside it, in `photos`. Tests must leave both as they are,
    except for the report of `evaluate`.
    """
    folder = tmp_path_factory.mktemp("training")
    for part, (x, y) in zip(("train", "test"), split_digits(), strict=True):
        for name, digit in zip(CLASSES, (3, 4, 6), strict=True):
            images = x[y == digit][:70]
            save_digits(folder / "photos" / part / name, images)
    cli.main(
        [
            *("train", "--data", str(folder / "photos")),
            *("--output", str(folder / "run"), "--quiet", "--keep-best"),
            *("--image-size", "8", "--epochs", "2", "--batch-size", "32"),
        ]
    )
    return folder / "run"


@pytest.fixture
def small_disk(capsys):
    """A context in which no file can become larger than a number of bytes.

    This has the same effect as a full disk. What is printed goes to no file.
    """

    @contextlib.contextmanager
    def limited(size):
        usual = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)

    return limited


@pytest.fixture(scope="session")
def finished(photos, tmp_path_factory):
    """The folder of a training with all kinds of state. Do not change it."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "mine.json").write_text(json.dumps(RECIPE))
    cli.main(with_state(photos, folder / "run", folder / "mine.json"))
    return folder / "run"


@pytest.fixture
def copied(finished, photos, tmp_path):
    """A copy of it, and its command. The file of the recipe is not there."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run", with_state(
        photos, tmp_path / "run", tmp_path / "mine.json"
    )
