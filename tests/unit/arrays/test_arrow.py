import numpy as np
import pyarrow as pa
import pytest

from fastps.arrays import arrow
from fastps.errors import DtypeError


def test_a_tensor_lies_on_the_memory_of_its_array():
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    tensor = arrow.tensor(values)
    assert isinstance(tensor, pa.Tensor)
    assert (tensor.shape, tensor.type) == ((3, 4), pa.float32())
    values[1, 2] = 99
    assert tensor.to_numpy()[1, 2] == 99
    assert np.shares_memory(tensor.to_numpy(), values)


def test_the_error_for_nulls_says_what_to_pass():
    with pytest.raises(DtypeError, match="without nulls"):
        arrow.to_numpy(pa.array([1.0, None]), "push")
