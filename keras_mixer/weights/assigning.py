"""Assigns arrays to the variables of a model: to all variables or none."""

from keras_mixer.weights.errors import WeightsError
from keras_mixer.weights.naming import HEAD

# Has the width of the MLP over tokens.
_WIDTH = "block_0/token_mixing/dense_0/bias"

SHOWN = 8  # number of lines of a difference in an error message


def check(expected, received, problem):
    """Checks that the arrays are exactly the expected ones.

    Args:
        expected: `{path: shape}`.
        received: `{path: shape}`.
        problem: The beginning of the error message.

    Raises:
        WeightsError: If a path is missing or unexpected, or a shape differs.
    """
    if expected != received:
        raise WeightsError(f"{problem}\n{_difference(expected, received)}")


def assign(variables, arrays, source):
    """Assigns each variable its array, after checking that all arrays fit.

    Args:
        variables: `{path: keras.Variable}`.
        arrays: `{path: array}`. Each array is removed after it is assigned, to
            save memory.
        source: Name of the source of the arrays, for the error message.

    Raises:
        WeightsError: If a path is missing or unexpected, or a shape differs. In
            this case no variable has changed.
    """
    expected, received = shapes(variables), shapes(arrays)
    problem = f"Cannot load '{source}': its weights do not match this model."
    check(expected, received, problem + _advice(expected, received))
    for path, variable in variables.items():
        variable.assign(arrays.pop(path))


def copy_value(source, target):
    """Assigns the value of a variable to another variable.

    `target.assign(source)` shares the value on JAX. `fit` and `predict` donate
    the values of a model to JAX, which deletes them: the other model is then
    destroyed (Keras 3.15, no report found).
    """
    import keras  # here: the tables of this room are used without Keras

    target.assign(keras.ops.copy(source))


def shapes(arrays):
    """Returns `{path: shape}` of arrays or variables."""
    return {path: tuple(array.shape) for path, array in arrays.items()}


def _advice(expected, received):
    differing = {path for path, _ in expected.items() ^ received.items()}
    if all(path.startswith(HEAD) for path in differing):
        return (
            " Only the head differs: build the model with the same `classes` "
            "as the file, or with `include_top=False` and your own head."
        )
    if all("/token_mixing/" in path for path in differing):
        widths = [each.get(_WIDTH, (None,))[0] for each in (received, expected)]
        if widths[0] != widths[1]:
            return (
                f" Only token mixing differs: in the file, its MLP is "
                f"{widths[0]} wide, in this model {widths[1]}. Build the model "
                f"with `tokens_mlp_dim={widths[0]}`."
            )
        return (
            " Only token mixing differs: the weights are for another grid of "
            "tokens. Build the model with the `input_shape` of the file. Then "
            "change the size with `keras_mixer.resize`."
        )
    return " Build the same variant as the one in the file."


def _difference(expected, received):
    lines = []
    for path in expected | received:
        if expected.get(path) != received.get(path):
            if path in expected:
                lines.append(f"- expected {path} {expected[path]}")
            if path in received:
                lines.append(f"+ received {path} {received[path]}")
    hidden = len(lines) - SHOWN
    if hidden > 0:
        lines[SHOWN:] = [f"  and {hidden} more lines"]
    return "\n".join(lines)
