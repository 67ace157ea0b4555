"""Checks of arguments that several modules use."""

import dataclasses
import math
import numbers
import operator
import os
import re
import typing
from collections.abc import Callable
from typing import Any

# A scheme has at least two letters: "C:/photos" is a path of Windows. `pathlib`
# makes "gs:/bucket" of "gs://bucket".
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def check_local_path(name, path):
    """Raises an error if `path` is an address such as `"gs://bucket/file"`.

    `pathlib` takes such an address for a relative path, and would create a
    folder `gs:`. Call this where a path is taken, before anything is written.

    Args:
        name: Name of the argument, for the message.
        path: A string or a `pathlib.Path`. Other values are not checked.
    """
    if isinstance(path, (str, os.PathLike)) and SCHEME.match(os.fspath(path)):
        raise ValueError(
            f"`{name}` must be a path on this machine. Copy the files to or "
            f"from the other place yourself. Received: {name}='{path}'"
        )


def check_model(model, expected="a Keras model"):
    """Raises an error if `model` is not a model of Keras 3."""
    import keras

    if isinstance(model, keras.Model):
        return
    kind = type(model)
    module = kind.__module__.partition(".")[0]
    name = (
        kind.__name__ if module == "builtins" else f"{module}.{kind.__name__}"
    )
    hint = ""
    if any(base.__module__.startswith("tf_keras.") for base in kind.__mro__):
        hint = (
            ", a model of Keras 2. Use `keras.saving.load_model`, or build it "
            "again with Keras 3"
        )
    raise TypeError(
        f"`model` must be {expected}. Received: model of type {name}{hint}"
    )


def check_call(model):
    """Raises an error if a model has a `call` of its own.

    What such a model computes is not in its graph.
    """
    if not model.call.__module__.startswith("keras."):
        raise ValueError(
            f"`{type(model).__name__}.call` would be lost. Use a functional or "
            "`Sequential` model, and a layer for what is computed there. "
            f"Received: model='{model.name}'"
        )


def check_positive_int(name, value):
    """Returns `value` as an `int`. Raises an error if it is not positive."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(
            f"`{name}` must be a positive integer. "
            f"Received: {name}={value!r} (of type {type(value).__name__})"
        )
    if number < 1:
        raise ValueError(
            f"`{name}` must be a positive integer. Received: {name}={value}"
        )
    return number


def check_rate(name, value):
    """Returns `value` as a `float`. Raises an error unless in [0, 1)."""
    check_real(name, value)
    if not 0 <= value < 1:
        raise ValueError(
            f"`{name}` must be in [0, 1): it is the fraction that is dropped. "
            f"Received: {name}={value}"
        )
    return float(value)


def check_real(name, value):
    """Raises an error if `value` is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"`{name}` must be a number. "
            f"Received: {name}={value!r} (of type {type(value).__name__})"
        )
    if not abs(value) < math.inf:  # not `isfinite`: large integers are finite
        raise ValueError(
            f"`{name}` must be a finite number. Received: {name}={value}"
        )


def check_natural(name, value):
    """Returns `value` as an `int`. Raises an error if it is negative."""
    is_integer = isinstance(value, numbers.Integral)
    if is_integer and not isinstance(value, bool) and value >= 0:
        return int(value)
    raise (ValueError if is_integer else TypeError)(
        f"`{name}` must be a non-negative integer. "
        f"Received: {name}={value!r} (of type {type(value).__name__})"
    )


def check_seed(value):
    """Returns a seed as an `int`. Raises an error unless in [0, 2**32).

    NumPy's global generator, which Keras seeds too, takes no other seeds.
    """
    value = check_natural("seed", value)
    if value >= 2**32:
        raise ValueError(
            f"`seed` must be below 2**32 = {2**32}. Received: seed={value}"
        )
    return value


def check_crop_ratio(value):
    """Raises an error if `value` is not in (0, 1]."""
    check_real("crop_ratio", value)
    if not 0 < value <= 1:
        raise ValueError(
            f"`crop_ratio` must be in (0, 1]. Received: crop_ratio={value}"
        )


def check_image_size(image_size):
    """Returns height and width. Raises an error if they are not positive."""
    if isinstance(image_size, (tuple, list)):
        if len(image_size) != 2:
            raise ValueError(
                "`image_size` must be a positive integer, or height and width. "
                f"Received: image_size={image_size}"
            )
        return tuple(check_positive_int("image_size", s) for s in image_size)
    return (check_positive_int("image_size", image_size),) * 2


def check_held_out(held_out):
    """Returns the fraction. Raises an error unless it is in (0, 1)."""
    check_real("held_out", held_out)
    if not 0 < held_out < 1:
        raise ValueError(
            "`held_out` must be in (0, 1): it is the fraction of the images "
            f"that is not used for training. Received: held_out={held_out}"
        )
    return held_out


def check_channels(channels):
    """Raises an error unless `channels` is 1 or 3."""
    check_positive_int("channels", channels)
    if channels not in (1, 3):
        raise ValueError(
            "`channels` must be 3 (RGB) or 1 (gray). "
            f"Received: channels={channels}"
        )


class Rule(typing.NamedTuple):
    """What a field of a data class may be: a text, and a check of values."""

    text: str
    accepts: Callable[[Any], bool]


def number_in(interval, kind=numbers.Real):
    """Returns the rule of a number in an interval, such as `"[0, 1)"`."""
    low, high = map(float, interval[1:-1].split(", "))
    ends = [low] * (interval[0] == "[") + [high] * (interval[-1] == "]")

    def accepts(value):
        if isinstance(value, bool) or not isinstance(value, kind):
            return False
        return low < value < high or value in ends

    name = "a number" if kind is numbers.Real else "an integer"
    return Rule(f"{name} in {interval}", accepts)


COUNT = number_in("[1, inf)", numbers.Integral)
NATURAL = number_in("[0, inf)", numbers.Integral)
POSITIVE = number_in("(0, inf)")
NOT_NEGATIVE = number_in("[0, inf)")


def one_of(*values):
    # 1 and 0 are not booleans.
    return Rule(
        f"one of {values}",
        lambda value: any(
            type(value) is type(each) and value == each for each in values
        ),
    )


def instance_of(kind, text):
    return Rule(text, lambda value: isinstance(value, kind))


def check_fields(record, rules):
    """Raises an error if a field of a data class breaks its rule.

    A field that is `None` by default may be `None`.

    Args:
        record: An instance of a data class.
        rules: Dict `{name of a field: Rule}`.
    """
    defaults = {f.name: f.default for f in dataclasses.fields(record)}
    for name, rule in rules.items():
        value = getattr(record, name)
        is_open = value is None and defaults[name] is None
        if not is_open and not rule.accepts(value):
            raise ValueError(
                f"`{name}` must be {rule.text}. Received: {name}={value!r}"
            )
