"""Keys as users write them, and what becomes of them."""

import array

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastps._core import hash_of
from fastps.errors import DtypeError, KeysError, ParameterError, ShapeError
from fastps.spec.keys import KINDS, as_keys, from_keys

WHERE = "pull `t` keys"
RANGES = {"int64": (-(2**63), 2**63 - 1), "uint64": (0, 2**64 - 1)}
NUMBERS = list(RANGES)


class ArrowOnly:
    """What has nothing but Arrow's C interface."""

    def __init__(self, values):
        self._values = pa.array(values)

    def __arrow_c_array__(self, requested_schema=None):
        return self._values.__arrow_c_array__(requested_schema)


def served(keys, kind):
    """The keys as they come out again."""
    found = as_keys(keys, kind, WHERE)
    assert (found.dtype, found.ndim) == (np.uint64, 1)
    assert found.flags.c_contiguous
    return from_keys(found, kind).tolist()


@given(st.data(), st.sampled_from(NUMBERS))
def test_whole_numbers_of_the_kind_come_out_as_they_went_in(data, kind):
    keys = data.draw(st.lists(st.integers(*RANGES[kind]), max_size=20))
    assert served(keys, kind) == keys
    assert served(tuple(keys), kind) == keys
    assert served(np.array(keys, kind), kind) == keys
    assert served((key for key in keys), kind) == keys


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
def test_every_type_of_whole_numbers_is_taken(kind, dtype):
    most = min(np.iinfo(dtype).max, RANGES[kind][1])
    assert served(np.array([0, most, 7], dtype), kind) == [0, most, 7]
    assert served([np.dtype(dtype).type(7)], kind) == [7]
    if dtype[0] == "i" and kind == "int64":
        least = np.iinfo(dtype).min
        assert served(np.array([least], dtype), kind) == [least]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (range(3, 9, 2), [3, 5, 7]),
        (np.arange(8)[::-3], [7, 4, 1]),
        (np.arange(12).reshape(3, 4)[:, 1], [1, 5, 9]),
        (array.array("q", [5, 6]), [5, 6]),
        ({4: "four", 2: "two"}, [4, 2]),
        ({9}, [9]),
        (pa.array([1, 2, 3]), [1, 2, 3]),
        (pa.array([1, 2, 3])[1:], [2, 3]),
        (pa.array([1, 2], pa.uint8()), [1, 2]),
        (pa.chunked_array([[1], [2, 3]]), [1, 2, 3]),
        (pa.array([5, 5, 6]).dictionary_encode(), [5, 5, 6]),
        ([], []),
        ((), []),
        (np.empty(0, np.int32), []),
        (pa.array([], pa.int64()), []),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", NUMBERS)
def test_sequences_iterables_and_arrays_of_any_layout_are_taken(keys, expected, kind):
    assert served(keys, kind) == expected


@pytest.mark.parametrize("kind", NUMBERS)
def test_iterators_are_taken_and_used_up(kind):
    keys = map(abs, [-1, -2, 3])
    assert served(keys, kind) == [1, 2, 3]
    assert list(keys) == []
    assert served(keys, kind) == []


@pytest.mark.parametrize("kind", NUMBERS)
def test_what_has_arrows_interface_alone_is_taken(kind):
    assert served(ArrowOnly([3, 1, 2]), kind) == [3, 1, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_of_a_million_keys_is_taken_and_keeps_its_order(kind):
    if kind == "bytes":
        found = as_keys((str(i % 7) for i in range(1_000_000)), kind, WHERE)
        seven = np.array([hash_of(str(i).encode()) for i in range(7)], np.uint64)
        assert np.array_equal(found, np.resize(seven, 1_000_000))
    else:
        found = as_keys((i * 3 for i in range(1_000_000)), kind, WHERE)
        assert np.array_equal(found, np.arange(1_000_000, dtype=np.uint64) * np.uint64(3))


def test_the_arrays_that_users_give_are_not_changed():
    keys = np.array([3, -1, 2])
    kept = keys.copy()
    as_keys(keys, "int64", WHERE)
    assert np.array_equal(keys, kept)


NO_NUMBERS = {
    "floats": [1.0, 2.0],
    "a float that is whole": np.array([1.0]),
    "no number": [float("nan")],
    "float16": np.ones(2, np.float16),
    "complex": np.ones(2, complex),
    "bool": [True, False],
    "numpy's bool": [np.True_],
    "bools": np.ones(2, bool),
    "a bool among numbers": [1, 2, True],
    "None": [None],
    "no keys at all": None,
    "one key": 3,
    "one float": 3.5,
    "text": "abc",
    "bytes": b"abc",
    "list of str": ["a"],
    "digits": ["12"],
    "list of bytes": [b"a"],
    "numpy str": np.array(["a", "b"]),
    "numpy bytes": np.array([b"a"]),
    "numpy strings": np.array(["a"], np.dtypes.StringDType()),
    "objects": np.array([1, 2], object),
    "dates": np.array(["2020-01-01"], "M8[D]"),
    "another byte order": np.array([1, 2], ">i8"),
    "Arrow with nulls": pa.array([1, None]),
    "Arrow floats": pa.array([1.0]),
    "Arrow bools": pa.array([True]),
    "Arrow text": pa.array(["a"]),
    "a record": np.zeros(2, [("a", int)]),
    "empty floats": np.array([]),
}


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("keys", NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_what_is_no_sequence_of_whole_numbers_raises_dtype_error_that_says_where(keys, kind):
    with pytest.raises(DtypeError, match="expected") as caught:
        as_keys(keys, kind, WHERE)
    assert str(caught.value).startswith(WHERE)
    assert kind in str(caught.value)


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("keys", [["a"], np.array(["a"])], ids=type)
def test_text_for_a_table_of_numbers_names_what_was_given(keys, kind):
    with pytest.raises(DtypeError, match=r"str 'a'|<U1\[1\]"):
        as_keys(keys, kind, WHERE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(), (2, 2), (1, 1), (3, 0), (1, 2, 3)])
@pytest.mark.parametrize("dtype", ["int64", "U1", "S1"])
def test_arrays_of_another_number_of_dimensions_raise_shape_error_or_dtype_error(kind, shape, dtype):
    with pytest.raises(ShapeError if (kind == "bytes") == (dtype != "int64") else (ShapeError, DtypeError)) as caught:
        as_keys(np.ones(shape, dtype), kind, WHERE)
    assert WHERE in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "nested", [[[1, 2], [3, 4]], [[1], [2, 3]], [["a"]], [(1,)], [np.arange(2)], [{1: 2}]], ids=str
)
def test_nested_sequences_raise_a_parameter_error(nested, kind):
    with pytest.raises(ParameterError, match="expected"):
        as_keys(nested, kind, WHERE)


@pytest.mark.parametrize(
    ("kind", "keys", "at"),
    [
        ("uint64", [1, -1], 1),
        ("uint64", [-(2**63)], 0),
        ("uint64", np.array([3, 4, -5]), 2),
        ("uint64", np.array([-1], np.int8), 0),
        ("uint64", [7, np.int64(-1)], 1),
        ("uint64", [1, np.int8(-2)], 1),
        ("uint64", pa.array([1, -2]), 1),
        ("uint64", [2**64], 0),
        ("uint64", [0, 10**30], 1),
        ("int64", [0, 2**63], 1),
        ("int64", [-(2**63) - 1], 0),
        ("int64", np.array([1, 2**63], np.uint64), 1),
        ("int64", [np.uint64(2**64 - 1)], 0),
        ("int64", pa.array([2**63], pa.uint64()), 0),
        ("int64", range(2**63 - 1, 2**63 + 1), 1),
    ],
    ids=str,
)
def test_a_key_out_of_range_raises_keys_error_with_the_key_and_its_place(kind, keys, at):
    with pytest.raises(KeysError) as caught:
        as_keys(keys, kind, WHERE)
    assert isinstance(caught.value, ValueError)
    for word in (WHERE, f"at [{at}]", str(keys[at])):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("int64", [2**63]), ("int64", [0, 2**64 - 1]), ("int64", [np.uint64(2**63)]),
        ("int64", np.array([1, 2**63], np.uint64)), ("uint64", [-1]), ("uint64", [0, -(2**63)]),
        ("uint64", np.array([3, -5])), ("uint64", [np.int8(-2)]),
    ],
    ids=str,
)  # fmt: skip
def test_the_type_that_a_message_names_takes_the_keys(kind, keys):
    with pytest.raises(KeysError, match=r"create the table with keys='u?int64'$") as caught:
        as_keys(keys, kind, WHERE)
    other = str(caught.value).rpartition("keys=")[2].strip("'")
    assert other != kind
    assert served(keys, other) == list(keys)


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("keys", [[2**64], [10**5000], [-1, 2**63], [-(2**63) - 1]], ids=["65", "long", "both", "low"])
def test_keys_that_no_type_of_numbers_takes_can_be_text(kind, keys):
    with pytest.raises(KeysError, match=r"pass them as text to a table with keys='bytes'$") as caught:
        as_keys(keys, kind, WHERE)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("keys", [["a"], [b"a"], np.array(["a"])], ids=str)
def test_text_for_a_table_of_numbers_is_told_of_tables_of_text(kind, keys):
    with pytest.raises(DtypeError, match=r"pass integers, or create the table with keys='bytes'$"):
        as_keys(keys, kind, WHERE)
    assert len(as_keys(keys, "bytes", WHERE)) == 1


@pytest.mark.parametrize(
    "keys",
    [
        ["user:1", "user:2", "é"],
        ("user:1", "user:2", "é"),
        [b"user:1", b"user:2", "é".encode()],
        ["user:1", b"user:2", "é"],
        np.array(["user:1", "user:2", "é"]),
        np.array(["user:1", "user:2", "é"], object),
        np.array(["user:1", "user:2", "é"], np.dtypes.StringDType()),
        np.array([b"user:1", b"user:2", "é".encode()]),
        np.array(["user:1", "-", "user:2", "-", "é", "-"])[::2],
        pa.array(["user:1", "user:2", "é"]),
        pa.array(["user:1", "user:2", "é"], pa.large_string()),
        pa.array([b"user:1", b"user:2", "é".encode()]),
        pa.array(["-", "user:1", "user:2", "é"])[1:],
        pa.chunked_array([["user:1"], ["user:2", "é"]]),
        pa.array(["user:1", "user:2", "é"]).dictionary_encode(),
        dict.fromkeys(["user:1", "user:2", "é"]),
    ],
    ids=lambda keys: type(keys).__name__,
)
def test_text_and_its_bytes_are_the_same_key_however_they_come(keys):
    expected = [hash_of(b"user:1"), hash_of(b"user:2"), hash_of("é".encode())]
    assert served(keys, "bytes") == expected


@pytest.mark.parametrize("keys", [[], (), np.empty(0, "U1"), pa.array([], pa.string())], ids=type)
def test_no_text_at_all_is_no_key(keys):
    assert served(keys, "bytes") == []


NO_TEXT = {
    "numbers": [1, 2],
    "an array of numbers": np.arange(3),
    "one number": 5,
    "one str, which would be taken letter by letter": "user",
    "bytes, which would be taken byte by byte": b"user",
    "None": None,
    "None among keys": ["a", None],
    "floats": [1.0],
    "bool": [True],
    "bytearray": [bytearray(b"a")],
    "Arrow with nulls": pa.array(["a", None]),
    "Arrow numbers": pa.array([1]),
    "a number without dimensions": np.array(3),
    "an object without dimensions": np.array(None, object),
}


@pytest.mark.parametrize("keys", NO_TEXT.values(), ids=NO_TEXT)
def test_what_is_no_sequence_of_text_raises_dtype_error_that_says_where(keys):
    with pytest.raises(DtypeError, match="expected") as caught:
        as_keys(keys, "bytes", WHERE)
    assert str(caught.value).startswith(WHERE)


def test_the_place_of_what_is_no_text_is_told():
    with pytest.raises(DtypeError, match=r"int 7 - at \[2\]"):
        as_keys(["a", b"b", 7], "bytes", WHERE)


def test_text_that_is_no_unicode_raises_a_parameter_error_that_says_where():
    with pytest.raises(ParameterError, match="pull `t` keys"):
        as_keys(["a", "\ud800"], "bytes", WHERE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_of_keys_is_not_lost(kind):
    keys = np.ma.array([1, 2] if kind != "bytes" else ["a", "b"], mask=[0, 1])
    with pytest.raises(DtypeError, match=r"omit masked keys: \.compressed\(\)$"):
        as_keys(keys, kind, WHERE)
    assert len(as_keys(keys.compressed(), kind, WHERE)) == 1


class Refusing:
    def __array__(self, dtype=None, copy=None):
        raise ZeroDivisionError("of theirs")


@pytest.mark.parametrize("kind", NUMBERS)
def test_keys_that_break_are_told_what_they_are(kind):
    view = memoryview(np.arange(3))
    view.release()
    for keys, name in ((view, "memoryview"), (Refusing(), "Refusing")):
        with pytest.raises(DtypeError, match=name) as caught:
            as_keys(keys, kind, WHERE)
        assert caught.value.__cause__ is not None


@pytest.mark.parametrize("kind", NUMBERS)
def test_what_is_told_of_keys_works(kind):
    torch, pandas = pytest.importorskip("torch"), pytest.importorskip("pandas")
    cases = [
        np.ones(2), torch.ones(2), torch.ones(2, requires_grad=True), torch.ones(2, dtype=torch.int64).to_sparse(),
        pa.array([1, None, 1]), pa.array([1.0, 1.0]), pandas.Series([1, None, 1], dtype="Int64"),
        pandas.Series([1.0, 1.0]),
    ]  # fmt: skip
    for keys in cases:
        with pytest.raises(DtypeError) as caught:
            as_keys(keys, kind, WHERE)
        hint = str(caught.value).rpartition("; ")[2]
        for words in ("convert it with ", "omit them: ", "pass it as tensor"):
            hint = hint.replace(words, "pass value")
        again = eval(hint.removeprefix("pass "), {"value": keys, "np": np, "torch": torch})
        assert served(again, kind) == [1, 1]


def test_a_message_about_keys_is_short_whatever_was_given():
    for keys, kind in (("x" * 10_000, "int64"), (["x" * 10_000], "int64"), ([("x",) * 10_000], "bytes")):
        with pytest.raises(DtypeError) as caught:
            as_keys(keys, kind, WHERE)
        assert len(str(caught.value)) < 300
