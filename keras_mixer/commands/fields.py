"""Fields of a dataclass that are also arguments of the command line."""

import argparse
import dataclasses


def parse_size(text):
    """Parses "224" or "192x320" to `(height, width)`."""
    sides = text.split("x")
    if len(sides) > 2 or not all(s.isdecimal() and int(s) for s in sides):
        raise argparse.ArgumentTypeError(
            "expected a size in pixels, such as 224, or height x width, such "
            f"as 192x320. Received: {text}"
        )
    return (int(sides[0]), int(sides[-1]))


# The groups of arguments in the help, in this order.
GROUPS = DATA, MODEL, TRAINING, DEVICE = "data", "model", "training", "devices"


def setting(group, default, text, shown=None, **argument):
    """Returns a field that is also an argument of the command line.

    Args:
        group: The group of the argument in the help.
        default: The default value.
        text: The help text, with the unit.
        shown: The default in the help text; by default the default value.
        **argument: Options of `argparse.ArgumentParser.add_argument`.
    """
    metadata = {
        "group": group,
        "text": text,
        "shown": shown or default,
        "argument": argument,
    }
    return dataclasses.field(default=default, metadata=metadata)
