"""Types that the annotations of several rooms share."""

import os
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

Path = str | os.PathLike[str]
Activation = str | Callable[..., Any] | None
# A tensor of the backend, a Keras tensor or an array.
Tensor = Any
Config = dict[str, Any]
# The shape of a batch, `None` where an axis is not known.
Shape = Sequence[int | None]
