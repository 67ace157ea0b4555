"""Writes a model, or its weights, to files for other software."""

from keras_mixer.exporting.exporter import export
from keras_mixer.exporting.push import push
from keras_mixer.exporting.weights import export_weights

__all__ = ["export", "export_weights", "push"]
