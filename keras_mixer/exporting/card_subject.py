"""What a model card is about, and the names of the files beside it."""

from typing import Any
from typing import NamedTuple

import keras

from keras_mixer.exporting.about import About
from keras_mixer.exporting.timm_config import Description
from keras_mixer.exporting.timm_config import sizes_of
from keras_mixer.models.constructors import FAMILIES
from keras_mixer.models.constructors import MODELS
from keras_mixer.models.contract import channels_behind

CARD = "README.md"
MODEL = "model.keras"
WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CLASS_NAMES = "class_names.json"


class Place(NamedTuple):
    """Where the files are, for the examples in the card."""

    name: str
    repo: str | None = None  # on the hub; None: in a folder of this name

    @property
    def address(self):
        """The value for `weights=`."""
        return f"hf://{self.repo}" if self.repo else f"{self.name}/{WEIGHTS}"


class Subject(NamedTuple):
    """A model, and what is known about it."""

    model: keras.Model
    about: About
    place: Place
    timm: Description
    files: list[str]  # names
    sizes: dict[str, Any]  # of `sizes_of`; empty if it cannot be exported
    variant: str | None = None

    @property
    def image(self):
        """Height, width and channels of the images."""
        return channels_behind(tuple(self.model.inputs[0].shape[1:]))

    @property
    def classes(self):
        """The number of classes: 0 without a head, `None` if not known."""
        if self.about.class_names is not None:
            return len(self.about.class_names)
        return self.sizes.get("classes")

    @property
    def constructor(self):
        """The name of the constructor, and the sizes that it takes."""
        if self.variant is not None:
            names = {name.lower(): name for name in MODELS}
            return names[self.variant.replace("_", "")], []
        family, constructor = FAMILIES[self.sizes["family"]]
        # The initial LayerScale is not known; the weights replace it.
        sizes = [self.sizes.get(name, 0.1) for name in family.sizes]
        return constructor.__name__, sizes


def subject_of(model, about, place, timm, files):
    """Returns the `Subject` of a model.

    Args:
        model: A Keras model that is or contains a model of this package.
        about: An `About`.
        place: A `Place`.
        timm: A `timm_config.Description`.
        files: Names of the files that were written.
    """
    found = Subject(model, about, place, timm, files, {})
    if WEIGHTS not in files:  # fused, quantised or with other layers
        return found
    sizes = sizes_of(model)
    variant = FAMILIES[sizes["family"]][0].variant_of(sizes)
    return found._replace(sizes=sizes, variant=variant)
