"""Names in files to our paths, such as `block_0/token_mixing/dense_0/kernel`.

The paths are a file format: layers are named, never numbered by Keras, and a
golden file pins every path of every variant.
"""


def rename(arrays):
    """Replaces the numbers that Keras gives to variables by their names.

    Args:
        arrays: `{name: array}` as `reading.read` returns it.

    Returns:
        `{path: array}`. A number that no variable of ours has is left as it is:
        `assigning.assign` then says that it is unexpected.
    """
    return {_path(name): array for name, array in arrays.items()}


def _path(name):
    layer, number = name.rsplit("/", 1)
    variables = (
        ("gamma", "beta") if layer.endswith("norm") else ("kernel", "bias")
    )
    return f"{layer}/{dict(enumerate(variables)).get(int(number), number)}"
