"""Writes the weights of a model to files for other software."""

from keras_mixer.exporting.weights import export_weights

__all__ = ["export_weights"]
