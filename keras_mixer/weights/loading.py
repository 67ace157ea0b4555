"""The steps from a file to a model, composed."""

from keras_mixer.weights import assigning
from keras_mixer.weights import naming
from keras_mixer.weights import reading


def load(layers, path):
    """Loads a file of weights into `layers`, strictly.

    The head in the file is left out where the model has none; everything else
    has to be there, and fit.

    Args:
        layers: The built layers of the model that have weights.
        path: What `reading.check_source` returned.

    Raises:
        ValueError: If the file cannot be read or holds other weights.
    """
    arrays = naming.rename(reading.read(path))
    variables = variables_of(layers)
    if not any(path.startswith("predictions/") for path in variables):
        arrays = {
            path: array
            for path, array in arrays.items()
            if not path.startswith("predictions/")
        }
    assigning.assign(variables, arrays, path)


def variables_of(layers):
    """`{path: variable}` of the weights of `layers`, seeds left out.

    Paths begin at the layer, whatever name scope the model was built in.
    """
    return {
        layer.name + variable.path.removeprefix(layer.path): variable
        for layer in layers
        for variable in layer.weights
    }
