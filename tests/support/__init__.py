"""What the tests share: an oracle, peers, published files and helpers.

PyTorch is imported before the others, so that its OpenMP runtime is the one
that is loaded: the other way round has been seen to hang.
"""

import torch  # noqa: F401
