"""The element types that are stored."""

import numpy as np
import pytest

from fastps.arrays.types import DTYPES, describe, item_bytes, numpy_dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_stored_type_has_the_size_that_numpy_gives_it(dtype):
    assert numpy_dtype(dtype) == np.dtype(dtype)
    assert item_bytes(dtype) == np.dtype(dtype).itemsize


def test_an_array_is_described_by_its_type_and_shape():
    assert describe(np.zeros((3, 4), np.float32)) == "float32[3, 4]"
    assert describe(np.zeros((), np.int64)) == "int64[]"
