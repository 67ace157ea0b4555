"""Checks of arguments, and of libraries that are imported where needed."""

import math
import sys

import pytest

from keras_mixer import arguments
from keras_mixer import optional


@pytest.mark.parametrize(
    ("check", "value", "error", "message"),
    [
        (arguments.check_seed, 2**32, ValueError,
         "`seed` must be below .*4294967296. Received: seed=4294967296$"),
        (arguments.check_seed, -1, ValueError, "non-negative .*: seed=-1"),
        (arguments.check_seed, 0.5, TypeError, "non-negative .*: seed=0.5"),
        (arguments.check_held_out, math.nan, ValueError, "held_out=nan"),
        (arguments.check_crop_ratio, math.inf, ValueError, "finite .*=inf"),
        (arguments.check_image_size, (8, 0), ValueError, "image_size=0"),
    ],
)  # fmt: skip
def test_values_out_of_range_raise_errors_with_their_names(
    check, value, error, message
):
    with pytest.raises(error, match=message):
        check(value)


def test_largest_seed_is_used():
    assert arguments.check_seed(2**32 - 1) == 2**32 - 1


def test_missing_library_and_library_with_a_missing_part_are_told_apart(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    with pytest.raises(ImportError, match="keras-cv, which is not installed"):
        optional.require("keras_cv")
    monkeypatch.delitem(sys.modules, "keras_cv")
    (tmp_path / "keras_cv.py").write_text("import nowhere_to_be_found")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="installed but cannot be imported"):
        optional.require("keras_cv")
