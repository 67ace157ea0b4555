"""`{path: array}` to the variables of a model: all of them, or none."""

SHOWN = 8  # lines of a difference in an error


def assign(variables, arrays, source):
    """Gives every variable its array, after all were found to fit.

    Args:
        variables: `{path: keras.Variable}`.
        arrays: `{path: array}`.
        source: Where the arrays come from, for the error.

    Raises:
        ValueError: If a path is missing or too many, or a shape differs; no
            variable has changed then.
    """
    expected = {path: tuple(v.shape) for path, v in variables.items()}
    received = {path: tuple(a.shape) for path, a in arrays.items()}
    if expected != received:
        raise ValueError(
            f"Cannot load '{source}': its weights are not those of this "
            f"model.{_advice(expected, received)}\n"
            f"{_difference(expected, received)}"
        )
    for path, variable in variables.items():
        variable.assign(arrays[path])


def _advice(expected, received):
    differing = {path for path, _ in expected.items() ^ received.items()}
    if all(path.startswith("predictions/") for path in differing):
        return (
            " Only the head differs: give the `classes` it was saved with, or "
            "`include_top=False` and a head of your own."
        )
    if all("/token_mixing/" in path for path in differing):
        return (
            " Only token mixing differs: the weights are of another grid of "
            "tokens. Give the `input_shape` they were saved with."
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
