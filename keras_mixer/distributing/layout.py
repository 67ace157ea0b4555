"""Layout of the weights of a model on several devices."""

import keras

from keras_mixer.arguments import check_positive_int
from keras_mixer.distributing.processes import process_count_and_index


def model_layout(
    mesh: keras.distribution.DeviceMesh,
) -> keras.distribution.LayoutMap:
    """Returns the layout that splits Mixers and ResMLPs over devices.

    The first kernel of an MLP is split by columns, and the second by rows. Each
    device gets the whole input and computes a part of the hidden units. The sum
    over the devices is the output. The widths of the MLPs must be multiples of
    the number of devices. All other weights are copied to each device, also the
    single kernel of ResMLP's token mixing.

    Source: section 3 of Megatron-LM (arXiv 1909.08053).

    Args:
        mesh: A `keras.distribution.DeviceMesh` with an axis named `"model"`.

    Returns:
        A `keras.distribution.LayoutMap`.

    Raises:
        ValueError: If the mesh does not have this axis.

    Example:

    >>> import keras
    >>> from keras_mixer.distributing import model_layout
    >>> mesh = keras.distribution.DeviceMesh(
    ...     (1, 1), ["batch", "model"], ["cpu:0"])
    >>> layout = model_layout(mesh)
    >>> layout["block_3/channel_mixing/dense_1/kernel"].axes
    ('model', None)
    """
    layout = keras.distribution.LayoutMap(mesh)
    mlp = r"(.*/)?(token|channel)_mixing/"
    layout[mlp + "dense_0/kernel"] = (None, "model")
    layout[mlp + "dense_0/bias"] = ("model",)
    layout[mlp + "dense_1/kernel"] = ("model", None)
    return layout


def distribution_of(kind, model_devices):
    found = keras.distribution.list_devices()
    if kind == "data":
        mesh = keras.distribution.DeviceMesh((len(found),), ["batch"], found)
        return keras.distribution.DataParallel(mesh, auto_shard_dataset=False)
    processes, process = process_count_and_index()
    if processes > 1:
        raise ValueError(
            "Keras cannot save weights that are cut up over several processes: "
            'train with `kind="data"`, or with one process. '
            f"Received: kind={kind!r} in process {process} of {processes}"
        )
    if model_devices is None:
        model_devices = len(found)
    model_devices = check_positive_int("model_devices", model_devices)
    if len(found) % model_devices:
        raise ValueError(
            "`model_devices` must divide the number of devices, which is "
            f"{len(found)}. Received: model_devices={model_devices}"
        )
    mesh = keras.distribution.DeviceMesh(
        (len(found) // model_devices, model_devices), ["batch", "model"], found
    )
    return keras.distribution.ModelParallel(
        layout_map=model_layout(mesh),
        batch_dim_name="batch",
        auto_shard_dataset=False,
    )
