"""Each private name of Keras that the package uses, in one function.

The names are those of Keras 3.15. If a new version of Keras renames one, only
this module changes. Each function says which public name would replace it.
"""


def flatten_layers(layer, recursive=True, include_self=True):
    """Returns the layers inside a layer, at any depth.

    Only models have the public `layers`. Other layers that contain layers have
    no public list of them.
    """
    return layer._flatten_layers(recursive=recursive, include_self=include_self)


def remat_of(layer):
    """Returns the mode of the `RematScope` in which a layer was created.

    The result has the attributes `mode` and `layer_names`, or is `None`. Keras
    has no public way to ask for it.
    """
    return layer._remat_mode


def has_hooks(layer):
    """Whether a call of a layer also calls functions of the user, on PyTorch.

    There, each layer is a module of PyTorch, which has no public list of its
    hooks (PyTorch 2.13).
    """
    return bool(
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
    )


def calls_by_depth(model):
    """Returns the calls of layers of a functional model, inputs first.

    A call has the attributes `operation`, `input_tensors` and `outputs`.
    Returns `None` for other models. Keras has no public list of the calls.
    """
    calls = getattr(model, "_nodes_by_depth", None)
    if calls is None:
        return None
    return [
        call for depth in sorted(calls, reverse=True) for call in calls[depth]
    ]


def operation_behind(tensor):
    """Returns the layer or operation that computed a symbolic tensor.

    Keras has no public name for it: `keras.utils.get_source_inputs` only finds
    the inputs.
    """
    return tensor._keras_history.operation


def clip_sums(optimizer):
    """Makes an optimizer sum gradients over replicas before it clips them.

    Keras clips and sums in two methods. The first is replaced by a function
    that does both, and the second then does nothing. Keras has no option for
    the order.
    """
    if not (
        optimizer.clipnorm or optimizer.global_clipnorm or optimizer.clipvalue
    ):
        return
    clip, add_up = (
        optimizer._clip_gradients,
        optimizer._all_reduce_sum_gradients,
    )

    def clip_sums(gradients):
        pairs = add_up(zip(gradients, gradients, strict=True))
        return clip([gradient for gradient, _ in pairs])

    optimizer._clip_gradients = clip_sums
    optimizer._all_reduce_sum_gradients = list
