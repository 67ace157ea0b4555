"""Loading of image data sets: `load_folder` and `load_tfds`."""

from keras_mixer.data.batches import Data
from keras_mixer.data.examining import ImageIndex
from keras_mixer.data.folders import load_folder
from keras_mixer.data.indexed import Images
from keras_mixer.data.tfds import load_tfds

__all__ = ["Data", "ImageIndex", "Images", "load_folder", "load_tfds"]
