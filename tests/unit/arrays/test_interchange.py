import array
import mmap

import numpy as np
import pyarrow as pa
import pytest

from fastps.arrays.interchange import as_array, conversion
from fastps.errors import DtypeError

VALUES = np.arange(6, dtype=np.float32)


class ArrayInterfaceOnly:
    def __init__(self, values):
        self._values = values
        self.__array_interface__ = values.__array_interface__


class DLPackOnly:
    def __init__(self, values):
        self._values = values

    def __dlpack__(self, **options):
        return self._values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._values.__dlpack_device__()


class RefusingDLPack:
    def __dlpack__(self, **_):
        raise BufferError("it requires grad")

    def __dlpack_device__(self):
        return (1, 0)


class ArrowOnly:
    def __init__(self, values):
        self._values = pa.array(values)

    def __arrow_c_array__(self, requested_schema=None):
        return self._values.__arrow_c_array__(requested_schema)


def address_of_arrow(values):
    return values.buffers()[1].address + values.offset * 4


@pytest.mark.parametrize("wrap", [ArrayInterfaceOnly, DLPackOnly, ArrowOnly, memoryview, lambda values: values])
def test_memory_of_other_libraries_is_shared_and_not_copied(wrap):
    values = VALUES.copy()
    found = as_array(wrap(values), "push")
    assert type(found) is np.ndarray
    assert found.dtype == np.float32
    assert np.array_equal(found, values)
    assert np.shares_memory(found, values)


def test_an_array_array_is_shared():
    values = array.array("d", [1.0, 2.0, 3.0])
    found = as_array(values, "push")
    values[1] = 20.0
    assert found.tolist() == [1.0, 20.0, 3.0]
    assert found.dtype == np.float64


def test_a_ctypes_array_and_a_cast_mmap_are_shared():
    import ctypes

    numbers = (ctypes.c_float * 3)(1, 2, 3)
    found = as_array(numbers, "push")
    numbers[0] = 9
    assert found.tolist() == [9, 2, 3]
    with mmap.mmap(-1, 4096) as memory:
        found = as_array(memoryview(memory).cast("d"), "push")
        assert (found.dtype, found.shape) == (np.float64, (512,))
        del found


def test_a_subclass_of_ndarray_becomes_a_plain_array_on_the_same_memory():
    class Named(np.ndarray):
        pass

    values = VALUES.copy().view(Named)
    found = as_array(values, "push")
    assert type(found) is np.ndarray
    assert np.shares_memory(found, values)


def test_an_arrow_array_is_shared():
    values = pa.array(VALUES)
    found = as_array(values, "push")
    assert found.ctypes.data == address_of_arrow(values)
    assert np.array_equal(found, VALUES)


def test_a_slice_of_an_arrow_array_is_shared_from_where_it_begins():
    values = pa.array(VALUES)[2:5]
    found = as_array(values, "push")
    assert found.tolist() == [2, 3, 4]
    assert found.ctypes.data == address_of_arrow(values)


def test_a_chunked_arrow_array_of_one_chunk_is_shared():
    values = pa.chunked_array([pa.array(VALUES)])
    found = as_array(values, "push")
    assert found.ctypes.data == address_of_arrow(values.chunk(0))


def test_a_fixed_size_list_is_a_matrix_on_the_same_memory():
    flat = pa.array(VALUES)
    found = as_array(pa.FixedSizeListArray.from_arrays(flat, 2), "push")
    assert found.shape == (3, 2)
    assert np.array_equal(found, VALUES.reshape(3, 2))
    assert found.ctypes.data == flat.buffers()[1].address


def test_a_slice_of_a_fixed_size_list_holds_its_own_rows_only():
    rows = pa.FixedSizeListArray.from_arrays(pa.array(VALUES), 2)[1:3]
    assert as_array(rows, "push").tolist() == [[2, 3], [4, 5]]


@pytest.mark.parametrize(
    "value",
    [
        pa.array([1.0, None]),
        pa.chunked_array([[1.0], [2.0]]),
        pa.chunked_array([], pa.float32()),
        pa.array(["a"]),
        pa.array([True, False]),
        pa.array([[1.0], [2.0, 3.0]]),
        pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2)),
        pa.array([[1.0, None]], pa.list_(pa.float32(), 2)),
        pa.table({"a": [1.0]}),
    ],
    ids=["nulls", "two chunks", "no chunk", "text", "bits", "ragged", "null row", "null in row", "table"],
)
def test_arrow_data_that_is_no_single_block_of_numbers_raises_dtype_error(value):
    with pytest.raises(DtypeError, match="push `w`"):
        as_array(value, "push `w`")


@pytest.mark.parametrize(
    "value",
    [
        [1.0, 2.0],
        (1.0,),
        "text",
        None,
        object(),
        {1.0},
        np.array([None]),
        np.array([object()], object),
        np.zeros(2, [("a", object)]),
        RefusingDLPack(),
    ],
)
def test_what_is_no_array_of_numbers_raises_dtype_error_that_says_where(value):
    with pytest.raises(DtypeError, match="push `w`"):
        as_array(value, "push `w`")


def test_integers_pass_as_they_are_for_the_structure_to_refuse():
    assert as_array(np.arange(3), "push").dtype == np.int64
    assert as_array(array.array("i", [1]), "push").dtype == np.int32


def test_a_number_becomes_an_array_without_dimensions():
    assert as_array(2.5, "push").shape == ()


def test_a_mask_is_not_lost():
    masked = np.ma.array(VALUES, mask=[1, 0, 0, 0, 0, 0])
    for value in (masked, masked[:0], np.ma.masked):
        with pytest.raises(DtypeError, match="fill it first"):
            as_array(value, "push")
    assert as_array(masked.filled(0), "push").tolist() == [0, 1, 2, 3, 4, 5]


class Broken:
    """What a library might offer, and then not keep."""

    def __init__(self, **offers):
        vars(self).update(offers)


def raises(error):
    def call(*_, **__):
        raise error

    return call


@pytest.mark.parametrize(
    "value",
    [
        Broken(__array_interface__={"version": 3}),
        Broken(__array_interface__={"version": 3, "shape": (2,), "typestr": "<f4", "data": None}),
        Broken(__array_interface__="nonsense"),
        Broken(__dlpack__=raises(ZeroDivisionError("of theirs")), __dlpack_device__=lambda: (1, 0)),
        Broken(__dlpack__=lambda **_: "no capsule", __dlpack_device__=lambda: (1, 0)),
        Broken(__dlpack__=lambda **_: None),
        Broken(__arrow_c_array__=lambda *_: "no capsule"),
        Broken(__arrow_c_stream__=raises(KeyError("of theirs"))),
    ],
)
def test_what_is_broken_is_a_dtype_error_that_names_it(value):
    with pytest.raises(DtypeError, match=r"push `w`: .*Broken|push `w`: this Arrow") as caught:
        as_array(value, "push `w`")
    assert caught.value.__cause__ is not None


def test_a_memoryview_that_was_released_is_a_dtype_error():
    view = memoryview(np.zeros(3, np.float32))
    view.release()
    with pytest.raises(DtypeError, match="memoryview"):
        as_array(view, "push")


def torch_cases():
    torch = pytest.importorskip("torch")
    plain = torch.arange(6, dtype=torch.float32)
    complex_ = torch.ones(3, dtype=torch.complex64)
    return {
        "sparse": plain.to_sparse(),
        "sparse that requires grad": plain.to_sparse().requires_grad_(),
        "negative bit": complex_.conj().imag,
        "negative bit that requires grad": complex_.conj().imag.detach().requires_grad_(),
        "zeros that are not stored": torch._efficientzerotensor(6),
        "nested": torch.nested.as_nested_tensor([plain[:4], plain[:2]], layout=torch.strided),
        "compressed rows": plain.reshape(2, 3).to_sparse_csr(),
        "quantized": torch.quantize_per_tensor(plain, 0.1, 0, torch.qint8),
    }


def test_what_is_told_of_tensors_works():
    torch = pytest.importorskip("torch")
    for what, tensor in torch_cases().items():
        with pytest.raises(DtypeError) as caught:
            as_array(tensor, "push")
        hint = str(caught.value).rpartition("pass it as ")[2]
        assert hint.startswith("tensor."), what
        again = as_array(eval(hint, {"tensor": tensor, "torch": torch}), "push")
        assert again.dtype == np.float32, what
        assert again.shape == ((2, 4) if tensor.is_nested else tuple(tensor.shape))
        if what == "zeros that are not stored":
            assert again.tolist() == [0] * 6
    assert conversion(torch.ones(3, dtype=torch.float64), "float32") == "convert it with .to(torch.float32)"


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_a_tensor_is_its_memory_without_its_graph(dtype, requires_grad):
    torch = pytest.importorskip("torch")
    tensor = torch.arange(6, dtype=getattr(torch, dtype)).reshape(2, 3).requires_grad_(requires_grad)
    array = as_array(tensor, "push")
    assert (array.dtype.name, array.shape) == (dtype, (2, 3))
    array[1, 2] = 100
    assert tensor[1, 2].item() == 100
    assert tensor.requires_grad == requires_grad
    if requires_grad:
        tensor.float().sum().backward()
        assert (as_array(tensor.grad, "push") == 1).all()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_an_array_of_jax_is_its_memory(dtype):
    jax = pytest.importorskip("jax")
    array = as_array(jax.numpy.arange(6, dtype=dtype), "push")
    assert (array.dtype.name, array.astype(np.float32).tolist()) == (dtype, [0, 1, 2, 3, 4, 5])


def test_a_tensor_is_told_the_dtype_of_the_parameters():
    torch = pytest.importorskip("torch")
    sparse = torch.ones(3, dtype=torch.bfloat16).to_sparse()
    with pytest.raises(DtypeError, match=r"pass it as tensor\.to_dense\(\)\.to\(torch\.float64\)"):
        as_array(sparse, "push", "float64")
    with pytest.raises(DtypeError, match="it has no elements"):
        as_array(torch.empty(3, device="meta"), "push")


def followed(hint, value):
    """What a message says to pass."""
    for words in ("convert it with ", "pass it as ", "fill them first: ", "pass one part, such as "):
        hint = hint.replace(words, "pass value")
    return eval(hint.removeprefix("pass "), {"value": value, "np": np})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "value",
    [
        np.arange(3), np.float16(1), 1, np.ones(3, ">f4"), np.ones(3, bool), np.array(["2026"], "M8[D]"),
        np.ones(3, complex), np.array([1, 2], object), pa.array([1, 2]), pa.array([[1], [2]], pa.list_(pa.int32(), 1)),
        array.array("i", [1]), memoryview(np.arange(3)), bytes(8), bytearray(16),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_told_of_a_conversion_works(value, dtype):
    found = as_array(followed(conversion(value, dtype), value), "push", dtype)
    assert found.dtype == dtype


def test_of_records_one_field_is_to_be_passed():
    records = np.ones(3, [("x", np.float32), ("y", np.float32)])
    assert conversion(records, "float32") == "pass one of its fields, such as value['x']"
    assert as_array(records["x"], "push").dtype == np.float32


@pytest.mark.parametrize(
    ("value", "held"),
    [
        (np.array([1.0, None], object), "NoneType None - at [1]"),  # numpy would make a NaN of it
        (np.array([[1, 2], ["x", 3]], object), "str 'x' - at [1, 0]"),
        (np.array(["1.5", "two"]), "str 'two' - at [1]"),
        (np.array([[1.0], 2.0], object), "list [1.0] - at [0]"),
    ],
    ids=str,
)
def test_of_objects_that_are_no_numbers_the_first_is_named_and_no_conversion(value, held):
    hint = conversion(value, "float32")
    assert hint.startswith("pass an array of numbers, it holds ")
    assert held.split(" - ")[1] in hint
    assert held.split()[1] in hint
    assert "astype" not in hint
    assert "NaN" not in hint


def test_objects_and_texts_that_are_all_numbers_may_be_converted():
    for value in (np.array([1, 2.5], object), np.array(["1", "2.5"])):
        assert followed(conversion(value, "float32"), value).tolist() == [1, 2.5]


def test_no_conversion_of_complex_numbers_drops_a_part_without_a_word():
    torch = pytest.importorskip("torch")
    values = np.array([1 + 2j, 3 + 4j], np.complex64)
    for value in (values, torch.tensor(values), memoryview(values)):
        hint = conversion(value, "float32")
        assert hint.startswith("pass one part, such as ")
        assert ".real" in hint


INSTEAD = "pass np.empty((2,), np.float32)"


@pytest.mark.parametrize(
    "value",
    [[0, 0], "text", None, np.array([0, None]), np.ma.array([0.0, 1.0], mask=[0, 1]), RefusingDLPack()],
    ids=lambda value: type(value).__name__,
)
def test_where_a_copy_would_be_of_no_use_no_message_says_how_to_make_one(value):
    with pytest.raises(DtypeError) as caught:
        as_array(value, "pull out", "float32", lambda: INSTEAD)
    assert str(caught.value).endswith(f"; {INSTEAD}")


def refused(value, dtype="float32"):
    with pytest.raises(DtypeError, match="push `w`") as caught:
        as_array(value, "push `w`", dtype)
    return str(caught.value).rpartition("; ")[2]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "value",
    [[1.0, 2.0], ((1, 2), (3, 4)), np.array([1, 2], object), pa.chunked_array([[1.0], [2.0]])],
    ids=["list", "tuples", "objects", "two chunks"],
)
def test_what_is_told_of_a_value_that_is_no_array_works(value, dtype):
    assert as_array(followed(refused(value, dtype), value), "push").size in (2, 4)
    if not isinstance(value, pa.ChunkedArray):
        assert as_array(followed(refused(value, dtype), value), "push").dtype == dtype


def test_what_is_told_of_nulls_works():
    value = pa.array([1.0, None])
    assert as_array(followed(refused(value), value), "push").tolist() == [1, 0]


def test_what_pandas_holds_is_numbers_or_told_what_it_lacks():
    pandas = pytest.importorskip("pandas")
    values = np.array([1.0, np.nan])
    for value in (pandas.Series(values), pandas.Index(values)):
        assert np.array_equal(as_array(value, "push"), values, equal_nan=True)  # NaN is a number to fastps
    for dtype in ("Float32", "float32[pyarrow]"):
        value = pandas.Series([1.0, None], dtype=dtype)
        assert as_array(followed(refused(value), value), "push").tolist() == [1, 0]
        assert as_array(value.fillna(2), "push").tolist() == [1, 2]
    value = pandas.array([1.0, 2.0], "Float32")
    assert as_array(followed(refused(value), value), "push").tolist() == [1, 2]


def test_no_gradient_is_told_to_be_left_out():
    with pytest.raises(DtypeError, match="NoneType; for gradients of some arrays only, pass partial=True"):
        as_array(None, "push `w`")
    with pytest.raises(DtypeError, match=r"NoneType$"):
        as_array(None, "create `w`")


def test_what_is_told_of_a_dtype_that_numpy_does_not_have_works():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    value = np.ones(3, bfloat16)
    assert as_array(followed(conversion(as_array(value, "push"), "float32"), value), "push").dtype == np.float32
