"""Checks of arguments that several modules take."""

import numbers
import operator


def check_positive_int(name, value):
    """Returns `value` as an `int`, or says what is wrong with it."""
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
    """Returns `value` as a `float`, or says what is wrong with it."""
    check_real(name, value)
    if not 0 <= value < 1:
        raise ValueError(
            f"`{name}` must be in [0, 1): it is the share that is dropped. "
            f"Received: {name}={value}"
        )
    return float(value)


def check_real(name, value):
    """Refuses what is not a number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"`{name}` must be a number. "
            f"Received: {name}={value!r} (of type {type(value).__name__})"
        )
