"""The command `push`: a model on the Hugging Face hub, or in a folder."""

import os

from keras_mixer import exporting
from keras_mixer.commands.subjects import load_subject
from keras_mixer.commands.trained import check_best
from keras_mixer.exporting.about import About
from keras_mixer.exporting.pushing import Options
from keras_mixer.exporting.pushing import push_described


def push(
    model, target, *, best=False, license=None, private=False, overwrite=False
):
    """Writes a model to the Hugging Face hub, or to a local folder.

    Args:
        model: The folder of a training, a `.keras` file, or the name of
            published weights.
        target: `"hf://organisation/name"`, or the path of a folder.
        best, license, private, overwrite: As for `keras_mixer.push`.

    Returns:
        The address of the repository, or the path of the folder.

    Raises:
        ValueError, OSError, ImportError: As `keras_mixer.push`.
    """
    options = Options(license, private, overwrite)
    if os.path.isdir(model):
        return exporting.push(model, target, best=best, **options._asdict())
    check_best(None, best)
    subject = load_subject(model)
    about = About()
    if subject.record is not None:
        about = About(
            class_names=subject.trained.names[0],
            record=subject.record,
            **subject.trained.evaluation,
        )
    return push_described(subject.trained.model, about, target, options)
