"""The table of variants of docs/models.md, counted from the code.

`KERAS_BACKEND=torch PYTHONPATH=tests python -m support.variants_table` prints
it. The parameters are counted from the golden shapes, which a test compares
with the models themselves. The multiply-adds are counted from the models: use
PyTorch, which builds them without memory for their weights.
"""

import math

import keras_mixer
from support import goldens

HEADER = """\
| constructor | parameters | GMACs | tokens | blocks | width |
|---|---:|---:|---:|---:|---:|
"""


def _tokens(shapes):
    name = "block_0/token_mixing/dense"
    tokens, _ = shapes.get(f"{name}/kernel") or shapes[f"{name}_0/kernel"]
    return tokens


def row(name, shapes):
    macs = sum(keras_mixer.macs(goldens.build(name)).values())
    constructor = goldens.CONSTRUCTORS[name].__name__
    parameters = sum(math.prod(shape) for shape in shapes.values())
    tokens = _tokens(shapes)
    blocks = sum(path.endswith("token_norm/beta") for path in shapes)
    (width,) = shapes["norm/beta"]
    return (
        f"| `{constructor}` | {parameters:,} | {macs / 1e9:.2f} "
        f"| {tokens} | {blocks} | {width} |\n"
    )


def table():
    return HEADER + "".join(row(*item) for item in goldens.load().items())


if __name__ == "__main__":
    print(table(), end="")
