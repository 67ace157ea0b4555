"""`{path: array}` to the variables of a model: all of them, or none."""

from keras_mixer.weights.errors import WeightsError
from keras_mixer.weights.naming import HEAD

SHOWN = 8  # lines of a difference in an error


def check(expected, received, problem):
    """Refuses arrays that are not exactly those expected.

    Args:
        expected: `{path: shape}`.
        received: `{path: shape}`.
        problem: What it means if they differ, the beginning of the error.

    Raises:
        WeightsError: If a path is missing or too many, or a shape differs.
    """
    if expected != received:
        raise WeightsError(f"{problem}\n{_difference(expected, received)}")


def assign(variables, arrays, source):
    """Gives every variable its array, after all were found to fit.

    Args:
        variables: `{path: keras.Variable}`.
        arrays: `{path: array}`; emptied, so that no array is kept beside the
            variable that has it.
        source: Where the arrays come from, for the error.

    Raises:
        WeightsError: If a path is missing or too many, or a shape differs; no
            variable has changed then.
    """
    expected, received = shapes(variables), shapes(arrays)
    problem = (
        f"Cannot load '{source}': its weights are not those of this model."
    )
    check(expected, received, problem + _advice(expected, received))
    for path, variable in variables.items():
        variable.assign(arrays.pop(path))


def shapes(arrays):
    """`{path: shape}` of arrays or variables."""
    return {path: tuple(array.shape) for path, array in arrays.items()}


def _advice(expected, received):
    differing = {path for path, _ in expected.items() ^ received.items()}
    if all(path.startswith(HEAD) for path in differing):
        return (
            " Only the head differs: give the `classes` it was saved with, or "
            "`include_top=False` and a head of your own."
        )
    if all("/token_mixing/" in path for path in differing):
        return (
            " Only token mixing differs: the weights are of another grid of "
            "tokens, or of a wider MLP across them. Build the model with the "
            "`input_shape` and `tokens_mlp_dim` they were saved with; "
            "`keras_mixer.resize` then makes it another size."
        )
    return " Build the variant they were saved from."


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
        lines[SHOWN:] = [f"  and {hidden} lines more"]
    return "\n".join(lines)
