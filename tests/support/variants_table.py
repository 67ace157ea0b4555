"""README's table of variants, counted from the code.

`PYTHONPATH=tests python -m support.variants_table` prints it. It counts from
the golden shapes, which a test compares with the models themselves.
"""

import math

from support import goldens

HEADER = """\
| constructor | parameters | GMACs | tokens | blocks | width |
|---|---:|---:|---:|---:|---:|
"""


def macs(shapes):
    """Multiplications of one image with every kernel.

    The stem and channel mixing use a kernel once for each token, token mixing
    once for each channel, the head once.
    """
    tokens = _tokens(shapes)
    channels = shapes["norm/beta"][0]
    total = 0
    for path, shape in shapes.items():
        if path.endswith("/kernel"):
            uses = tokens
            if "/token_mixing/" in path:
                uses = channels
            elif path.startswith("predictions/"):
                uses = 1
            total += math.prod(shape) * uses
    return total


def _tokens(shapes):
    name = "block_0/token_mixing/dense"
    tokens, _ = shapes.get(f"{name}/kernel") or shapes[f"{name}_0/kernel"]
    return tokens


def row(name, shapes):
    constructor = goldens.CONSTRUCTORS[name].__name__
    parameters = sum(math.prod(shape) for shape in shapes.values())
    tokens = _tokens(shapes)
    blocks = sum(path.endswith("token_norm/beta") for path in shapes)
    (width,) = shapes["norm/beta"]
    return (
        f"| `{constructor}` | {parameters:,} | {macs(shapes) / 1e9:.2f} "
        f"| {tokens} | {blocks} | {width} |\n"
    )


def table():
    return HEADER + "".join(row(*item) for item in goldens.load().items())


if __name__ == "__main__":
    print(table(), end="")
