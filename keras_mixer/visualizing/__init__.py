"""Pictures of what a model has learned, and of what it looks at in a photo."""

from keras_mixer.visualizing.class_activation import class_activation_map
from keras_mixer.visualizing.drawing import plot_heatmap
from keras_mixer.visualizing.drawing import plot_predictions
from keras_mixer.visualizing.occlusion import occlusion_map
from keras_mixer.visualizing.token_mixing import plot_token_mixing
from keras_mixer.visualizing.token_mixing import token_mixing_maps

__all__ = [
    "class_activation_map",
    "occlusion_map",
    "plot_heatmap",
    "plot_predictions",
    "plot_token_mixing",
    "token_mixing_maps",
]
