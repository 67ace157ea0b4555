"""Names in files to our paths, such as `block_0/token_mixing/dense_0/kernel`.

The paths are a file format: layers are named, never numbered by Keras, and a
golden file pins every path of every variant.
"""


def rename(arrays):
    """Replaces the numbers that Keras gives to variables by their names.

    Args:
        arrays: `{name: array}` as `reading.read` returns it.

    Returns:
        `{path: array}`.
    """
    return {_path(name): array for name, array in arrays.items()}


def _path(name):
    layer, number = name.rsplit("/", 1)
    variables = (
        ("gamma", "beta") if layer.endswith("norm") else ("kernel", "bias")
    )
    # A number beyond these belongs to a quantised layer, say; left as it is,
    # it shows up as unexpected.
    names = dict(enumerate(variables))
    return f"{layer}/{names.get(int(number), number)}"
