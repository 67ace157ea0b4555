"""Finds the blocks of a model by name or index."""

import operator
from collections.abc import Sequence

from keras_mixer.layers.mixing import Block


def blocks_of(model):
    """Returns `{name: block}` of a model of this package, in order."""
    return {
        layer.name: layer for layer in model.layers if isinstance(layer, Block)
    }


def block_name(model, block, others=()):
    """Returns the name of a block.

    Args:
        model: A model of this package.
        block: Name or index of a block. A negative index counts from the last.
        others: Names of layers that are accepted too.

    Raises:
        ValueError: If there is no such block. The message lists the names.
        TypeError: If `block` is neither a string nor an integer.
    """
    names = list(blocks_of(model))
    known = f"{', '.join([*others, *names])}, or an index such as -1"
    if isinstance(block, str):
        if block in (*others, *names):
            return block
        raise ValueError(
            f"There is no block '{block}' in '{model.name}'. Use one of: "
            f"{known}."
        )
    try:
        index = operator.index(block)
    except TypeError:
        index = None
    if index is None or isinstance(block, bool):
        raise TypeError(
            f"A block must be a name or an index. Use one of: {known}. "
            f"Received: {block!r} (of type {type(block).__name__})"
        )
    if not -len(names) <= index < len(names):
        raise ValueError(
            f"There is no block {index} in '{model.name}', which has "
            f"{len(names)} blocks. Use one of: {known}."
        )
    return names[index]


def block_names(model, blocks):
    """Returns the names of blocks, each of them once.

    Args:
        model: A model of this package.
        blocks: Name or index of a block, a list of them, or "all".
    """
    if isinstance(blocks, str) and blocks == "all":
        return list(blocks_of(model))
    if isinstance(blocks, str) or not isinstance(blocks, Sequence):
        blocks = [blocks]
    if not blocks:
        raise ValueError(
            "`blocks` must have at least one block, or be 'all'. "
            f"Received: blocks={blocks}"
        )
    return list(dict.fromkeys(block_name(model, each) for each in blocks))
