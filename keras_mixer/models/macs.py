"""Counts the multiply-adds of a model.

A layer is counted by what it calls: its `call` gets a symbolic image, and every
operation that it calls is a node of Keras's graph. Only the operations in
`_COUNTED` have a formula. So a block, a nested model and a layer of the user
need no code of their own. The formulas use the shapes of the operation, with a
batch of one image: an operation that moves tiles into the batch axis is counted
correctly.
"""

import collections
import contextlib
import math

import keras

from keras_mixer.arguments import check_model
from keras_mixer.layers.mixing import Block


def macs(model: keras.Model) -> dict[str, int]:
    """Counts the multiply-adds (MACs) of a model for one image.

    One multiplication with its addition counts as one, so the FLOPs are twice
    as many. What is counted are matrix products, convolutions and the
    products of attention. Biases, norms, activations, sums, means and layers
    that prepare or augment images are not counted, as usual.

    - Quantization does not change the result.
    - LoRA is counted as merged into the kernel, as for inference.
    - Operations on weights alone are not counted. They do not depend on the
      number of images.

    Source: the table of docs/models.md is computed by this function. The tests
    compare it with the counter of PyTorch, `torch.utils.flop_counter`.

    Args:
        model: A functional or Sequential Keras model, such as a model of this
            package, or a model that contains one. The size of its inputs must
            be known. It may contain layers of Keras and of your own that are
            written with Keras layers and `keras.ops`.

    Returns:
        A dict `{path of a layer: multiply-adds}`, in the order of the layers.
        It only has layers with multiply-adds. Nested models have one entry for
        each of their layers, blocks have one for token mixing and one for
        channel mixing, and other layers have one. The sum of the values is the
        total.

    Raises:
        ValueError: If the size of an input is unknown, or the model contains a
            layer that cannot be counted. The message names it.
        TypeError: If `model` is not a Keras model.

    Example:

    >>> import keras_mixer
    >>> model = keras_mixer.Mixer(
    ...     patch_size=4, num_blocks=1, hidden_dim=10, tokens_mlp_dim=7,
    ...     channels_mlp_dim=11, input_shape=(8, 12, 3), classes=5)
    >>> for name, count in keras_mixer.macs(model).items():
    ...     print(name, count)
    stem 2880
    block_0/token_mixing 840
    block_0/channel_mixing 1320
    predictions 50
    >>> sum(keras_mixer.macs(model).values())
    5090
    """
    images = _images(model)
    with _symbolic_calls(model):
        rows = _rows(model, [images], {})
    return {path: count for path, count in rows.items() if count}


def _images(model):
    """Returns symbolic inputs for one image."""
    check_model(model)
    shapes = [tuple(tensor.shape) for tensor in getattr(model, "inputs", [])]
    if not shapes or any(None in shape[1:] for shape in shapes):
        raise ValueError(
            "`model` must be a functional or Sequential model whose inputs "
            "have a known size. Build it with `keras.Input(shape)`. "
            f"Received: model='{model.name}', with inputs of shape {shapes}"
        )
    is_sequential = isinstance(model, keras.Sequential)
    return keras.tree.map_structure(
        lambda tensor: keras.KerasTensor((1, *tensor.shape[1:]), tensor.dtype),
        model.inputs[0] if is_sequential else model.input,
    )


@contextlib.contextmanager
def _symbolic_calls(model):
    """Context manager in which the layers of a model are called symbolically.

    At the end it removes the nodes that the calls added to the layers. With
    them, `layer.output` would raise an error. `EinsumDense` does not know the
    size of an axis that is `None` in its `output_shape`, so this context gives
    it another `compute_output_shape`.
    """
    layers = model._flatten_layers()
    einsums = [x for x in layers if isinstance(x, keras.layers.EinsumDense)]
    nodes = []
    for layer in layers:
        for operation in [layer, *getattr(layer, "operations", ())]:
            nodes += [operation._inbound_nodes, operation._outbound_nodes]
    lengths = [len(each) for each in nodes]
    try:
        for layer in einsums:
            layer.compute_output_shape = _output_shape_of(layer)
        yield
    finally:
        for layer in einsums:
            del layer.compute_output_shape
        for each, length in zip(nodes, lengths, strict=True):
            del each[length:]


def _output_shape_of(layer):
    def compute_output_shape(input_shape):
        return tuple(layer.call(keras.KerasTensor(input_shape)).shape)

    return compute_output_shape


def _rows(layer, args, kwargs):
    """Returns `{path: multiply-adds}` of what a layer calls."""
    rows = collections.Counter()
    for node in _calls(layer, args, kwargs):
        rows.update(_rows_of(node))
    return rows


def _rows_of(node):
    operation = node.operation
    args, kwargs = node.arguments.args, node.arguments.kwargs
    if not isinstance(operation, keras.Layer):
        return {operation.name: _count(operation, node, args)}
    if isinstance(operation, _NOT_COUNTED):
        return {}
    if isinstance(operation, _CONVOLUTIONS):
        _check_sizes(node)
        count = _conv(operation, node.outputs[0], args, operation.kernel)
        return {operation.name: count}
    rows = _rows(operation, args, kwargs)
    if isinstance(operation, (keras.Model, Block)):
        return {f"{operation.name}/{path}": rows[path] for path in rows}
    return {operation.name: rows.total()}


def _calls(layer, args, kwargs):
    """Returns the nodes of the operations that a layer calls, in order."""
    try:
        outputs = layer.call(*args, **kwargs)
    # A layer that does not use `keras.ops` can raise any exception.
    except Exception as error:
        raise _cannot_count(layer, "its call is not symbolic") from error
    seen = {id(tensor) for tensor in keras.tree.flatten([args, kwargs])}
    nodes = {}

    def visit(tensor):
        history = getattr(tensor, "_keras_history", None)
        if id(tensor) in seen or history is None or not history.operation:
            return
        seen.add(id(tensor))
        node = history.operation._inbound_nodes[history.node_index]
        if id(node) not in nodes:
            for needed in node.input_tensors:
                visit(needed)
            nodes[id(node)] = node

    for tensor in keras.tree.flatten(outputs):
        visit(tensor)
    return list(nodes.values())


# Layers that call the backend directly, not `keras.ops`, and multiply no
# matrices. The last one is the base class of the layers that prepare and
# augment images, such as `Resizing`: it has no public name.
_NOT_COUNTED = (
    keras.layers.Normalization,
    keras.layers.PReLU,
    keras.layers.Rescaling,
    keras.layers.RandomFlip.__base__,
)

# In Keras 3.15 the symbolic `ops.conv` refuses groups.
_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)


def _count(operation, node, args):
    """Returns the multiply-adds of an operation of `keras.ops`."""
    kind = type(operation)
    if kind.__name__ in _COUNTED:
        _check_sizes(node)
        return _COUNTED[kind.__name__](operation, node.outputs[0], *args)
    *_, module = kind.__module__.split(".")
    known = module in ("activations", "core", "einops", "math", "nn", "numpy")
    if kind.__name__ in _REFUSED or not known:
        raise _cannot_count(operation, "the operation has no formula")
    return 0


def _check_sizes(node):
    shapes = [tensor.shape for tensor in [*node.input_tensors, *node.outputs]]
    if any(None in shape for shape in shapes):
        raise _cannot_count(node.operation, f"unknown sizes in {shapes}")


def _cannot_count(operation, reason):
    return ValueError(
        "All layers must be Keras layers without recurrence, or consist of "
        "such layers and of `matmul`, `einsum`, convolutions and element-wise "
        f"functions of `keras.ops`. Received: '{operation.name}' (of type "
        f"{type(operation).__name__}), which cannot be counted: {reason}"
    )


def _size(tensor):
    return math.prod(tensor.shape)


def _matmul(operation, output, x1, x2):
    return _size(output) * x1.shape[-1]


def _einsum(operation, output, *operands):
    if len(operands) != 2:
        raise _cannot_count(operation, "it does not have two operands")
    terms = operation.subscripts.replace(" ", "").partition("->")[0].split(",")
    sizes = {}
    for term, operand in zip(terms, operands, strict=True):
        # "..." is numbered from the right, as when it is broadcast.
        before, dots, after = term.partition("...")
        count = len(operand.shape) - len(before) - len(after)
        letters = [*before, *reversed(range(count * bool(dots))), *after]
        for letter, size in zip(letters, operand.shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return math.prod(sizes.values())


def _conv(operation, output, x, kernel):
    return _size(output) * math.prod(kernel.shape[:-1])


def _attention(operation, output, query, key, value, *masks):
    # Both products are of the size of the query with each key.
    return 2 * _size(query) * key.shape[1]


def _conv_transpose(operation, output, x, kernel):
    return _size(x) * math.prod(kernel.shape[:-1])


def _depthwise_conv(operation, output, x, kernel):
    return _size(output) * math.prod(kernel.shape[:-2])


def _separable_conv(operation, output, x, depthwise, pointwise):
    positions = _size(output) // pointwise.shape[-1]
    return positions * (_size(depthwise) + _size(pointwise))


_COUNTED = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthwiseConv": _depthwise_conv,
    "DotProductAttention": _attention,
    "Einsum": _einsum,
    "Matmul": _matmul,
    "SeparableConv": _separable_conv,
}

# Operations that multiply matrices or call other functions.
_REFUSED = {
    "AssociativeScan",
    "CDist",
    "Cond",
    "Corrcoef",
    "Correlate",
    "Dot",
    "FFT",
    "FFT2",
    "ForiLoop",
    "IFFT2",
    "IRFFT",
    "ISTFT",
    "Inner",
    "Kron",
    "Map",
    "Outer",
    "RFFT",
    "STFT",
    "Scan",
    "Switch",
    "Tensordot",
    "Vdot",
    "VectorizedMap",
    "WhileLoop",
}
