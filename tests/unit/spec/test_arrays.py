import re
import sys
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastps.arrays.checks import apart
from fastps.errors import DtypeError, NamesError, OptionError, OutputError, ParameterError, ShapeError
from fastps.spec.initial import require_distinct, structure_of, zeros

names = st.text("abc/é", min_size=1, max_size=4)
arrays = st.tuples(st.lists(st.integers(1, 4), max_size=3).map(tuple), st.sampled_from([np.float32, np.float64])).map(
    lambda row: np.arange(np.prod(row[0], dtype=int), dtype=row[1]).reshape(row[0])
)
trees = st.recursive(arrays, lambda inner: st.dictionaries(names, inner, min_size=1, max_size=4), max_leaves=8)


def equal(a, b):
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)


@given(trees)
def test_the_shape_that_goes_in_comes_out(tree):
    structure, arrays = structure_of(tree)
    assert equal(structure.assemble(arrays), tree)


@given(trees)
def test_a_pulled_tree_can_be_pushed(tree):
    structure, arrays = structure_of(tree)
    again = structure.grads(structure.assemble(structure.empty()), "push")
    assert [(a.size, a.dtype) for a in again] == [(a.size, a.dtype) for a in arrays]


def test_a_mapping_may_come_in_another_order():
    structure, _ = structure_of({"a": np.zeros(2), "b": np.zeros(3)})
    a, b = structure.grads(OrderedDict(b=np.ones(3), a=np.zeros(2)), "push")
    assert a.tolist() == [0, 0]
    assert b.tolist() == [1, 1, 1]


def test_contiguous_gradients_are_not_copied_and_others_are():
    structure, _ = structure_of(np.zeros((4, 6), np.float32))
    grad = np.ones((4, 6), np.float32)
    (same,) = structure.grads(grad, "push")
    assert same.ctypes.data == grad.ctypes.data
    strided = np.asfortranarray(np.arange(24, dtype=np.float32).reshape(4, 6))
    (copy,) = structure.grads(strided, "push")
    assert copy.flags.c_contiguous
    assert np.array_equal(copy, strided)


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (np.zeros(4, np.float32), ShapeError, ["expected float32[3]", "got float32[4]"]),
        (np.zeros((3, 1), np.float32), ShapeError, ["expected float32[3]", "got float32[3, 1]"]),
        (np.zeros(3, np.float64), DtypeError, ["expected float32[3]", "got float64[3]", "astype(np.float32)"]),
        (np.zeros(3, np.int32), DtypeError, ["got int32[3]"]),
        (np.zeros(3, ">f4"), DtypeError, ["expected float32[3]"]),
        (np.array([None] * 3), DtypeError, ["got object[3]"]),
        ([1.0, 2.0, 3.0], DtypeError, ["got list"]),
        (None, DtypeError, ["got NoneType"]),
        ({"a": np.zeros(3, np.float32)}, ParameterError, []),
        (1.0, ParameterError, []),
    ],
)
def test_a_gradient_that_does_not_fit_an_array_names_what_was_expected_and_got(value, error, words):
    structure, _ = structure_of(np.zeros(3, np.float32))
    with pytest.raises(error) as caught:
        structure.grads(value, "push")
    assert isinstance(caught.value, ParameterError)
    for word in ["push", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": np.zeros(2)}, ["missing ['b/c']"]),
        ({"a": np.zeros(2), "b": {"c": np.zeros(1), "d": np.zeros(1)}}, ["unknown ['b/d']"]),
        ({"a": np.zeros(2), "b": np.zeros(1)}, ["missing ['b/c']", "unknown ['b']"]),
        ({"a": np.zeros(2), "b": {3: np.zeros(1)}}, ["int 3", "`b`"]),
        ({}, ["missing ['a', 'b/c']"]),
        (np.zeros(2), ["expected a mapping", "ndarray"]),
    ],
)
def test_wrong_names_are_told(value, words):
    structure, _ = structure_of({"a": np.zeros(2), "b": {"c": np.zeros(1)}})
    with pytest.raises(NamesError) as caught:
        structure.grads(value, "push")
    for word in words:
        assert word in str(caught.value)


def test_an_unknown_name_of_a_part_is_not_told_to_pass_all_names():
    structure, _ = structure_of({"a": np.zeros(2), "b": {"c": np.zeros(1)}})
    wrong, told = {"a": np.zeros(2), "x": np.zeros(2)}, r"unknown \['x'\]; expected some of .*: pass no other names"
    for part in (lambda: structure.part(wrong, "push"), lambda: structure.values(wrong, "set", partial=True)):
        with pytest.raises(NamesError, match=told) as caught:
            part()
        assert "exactly" not in str(caught.value)
    with pytest.raises(NamesError, match=r"pass exactly the names of the parameters$"):
        structure.grads(wrong | {"b": {"c": np.zeros(1)}}, "push")
    with pytest.raises(NamesError, match=r"pass exactly the arrays of names=$"):
        structure.only([0]).outs(wrong, "pull", structure)


@pytest.mark.parametrize("out", [[0.0, 0.0, 0.0], None, np.ma.zeros(3), np.array([None] * 3)], ids=str)
def test_a_message_about_out_names_a_new_array_and_no_conversion(out):
    structure, _ = structure_of(np.zeros(3))
    with pytest.raises(DtypeError, match=r"; pass np\.empty\(\(3,\), np\.float64\), or omit out=$"):
        structure.outs(out, "pull")


def test_of_what_no_rule_can_train_a_message_names_a_dtype_that_numpy_knows():
    words = np.array(["a", "bcd"])
    structure, _ = structure_of({"w": np.zeros(3), "words": words})
    with pytest.raises(DtypeError) as caught:
        structure.values({"w": np.zeros(3), "words": np.array([1, 2])}, "set")
    hint = str(caught.value).rpartition("convert it with ")[2]
    again = eval(f"value{hint}", {"value": np.array([1, 2]), "np": np})
    assert structure.values({"w": np.zeros(3), "words": again}, "set").keys() == {0, 1}


def test_complex_parameters_are_told_to_come_in_two_parts():
    for value in (np.array([1 + 2j], np.complex64), np.array([1 + 2j])):
        with pytest.raises(DtypeError, match=r"pass its parts, \.real and \.imag, as two arrays$"):
            structure_of(value)
        assert structure_of({"real": value.real, "imag": value.imag})[0].trained == [0, 1]


@pytest.mark.parametrize("value", [np.arange(3), np.ones(2, ">f4"), np.ones(2, bool)], ids=str)
def test_what_is_told_of_parameters_of_another_dtype_works(value):
    with pytest.raises(DtypeError) as caught:
        structure_of(value)
    hint = str(caught.value).rpartition("convert it with ")[2]
    assert structure_of(eval(f"value{hint}", {"value": value, "np": np}))[0].trained == [0]


def test_a_tensor_of_integers_is_told_how_tensors_are_converted():
    torch = pytest.importorskip("torch")
    with pytest.raises(DtypeError, match=r"convert it with \.to\(torch\.float32\)$"):
        structure_of(torch.arange(3))


def test_outputs_must_be_writable_contiguous_aligned_and_separate():
    structure, _ = structure_of({"a": np.zeros(4), "b": np.zeros(4)})
    fine = np.zeros(4)
    read_only = np.zeros(4)
    read_only.flags.writeable = False
    unaligned = np.zeros(40, np.uint8)[1:33].view(np.float64)
    for bad, word in [(read_only, "read-only"), (np.zeros(8)[::2], "C-contiguous"), (unaligned, "aligned")]:
        with pytest.raises(OutputError, match=word):
            structure.outs({"a": fine, "b": bad}, "pull")
    line = np.zeros(6)
    with pytest.raises(OutputError, match="share memory"):
        structure.outs({"a": line[:4], "b": line[2:]}, "pull")
    assert [a.ctypes.data for a in structure.outs({"a": fine, "b": line[:4]}, "pull")] == [
        fine.ctypes.data, line.ctypes.data,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({}, ShapeError),
        (np.zeros(0), ShapeError),
        ({"a": np.zeros((3, 0))}, ShapeError),
        (np.zeros(3, np.int64), DtypeError),
        (np.zeros(3, ">f2"), DtypeError),
        (np.zeros(3, complex), DtypeError),
        (np.zeros(3, ">f8"), DtypeError),
        (np.array(["a"]), DtypeError),
        (np.array([object()]), DtypeError),
        ("abc", DtypeError),
        ([1], DtypeError),
        ([], ShapeError),
        ({"a": 1, "b": "x"}, DtypeError),
        (None, DtypeError),
        (True, DtypeError),
        ({"a": None}, DtypeError),
        ({1: np.zeros(3)}, NamesError),
        ({"": np.zeros(3)}, NamesError),
        ({"a": {"": np.zeros(3)}}, NamesError),
        ({"a": np.ma.zeros(3)}, DtypeError),
    ],
)
def test_parameters_that_cannot_be_stored_raise(params, error):
    with pytest.raises(error):
        structure_of(params)


@pytest.mark.parametrize("length", [0, -1])
def test_zeros_of_no_length_raise_shape_error(length):
    with pytest.raises(ShapeError):
        zeros(length)


def test_zeros_are_float64():
    assert str(zeros(5)) == "float64[5]"


def many(n, nested):
    names = [f"{i:05}" for i in range(n)]
    return {"a": {name: np.zeros(2) for name in names}} if nested else {name: np.zeros(2) for name in names}


@pytest.mark.parametrize("nested", [False, True])
def test_a_missing_name_among_many_is_told_first_and_in_few_words(nested):
    structure, _ = structure_of(many(10_000, nested))
    values = many(10_000, nested)
    inner = values["a"] if nested else values
    del inner["00007"]
    inner["oops"] = np.zeros(2)
    with pytest.raises(NamesError) as caught:
        structure.grads(values, "push")
    text = str(caught.value)
    prefix = "a/" if nested else ""
    assert text.startswith(f"push: missing ['{prefix}00007'] and unknown ['{prefix}oops']; expected {{")
    assert "9,992 more" in text
    assert len(text) < 600
    with pytest.raises(NamesError) as caught:
        structure.grads({"x": np.zeros(2)}, "push")
    assert "10,000 in all" in str(caught.value)
    assert len(str(caught.value)) < 800


def test_what_is_looked_at_grows_with_the_arrays_and_not_with_their_square():
    class Counted(dict):
        looks = 0

        def items(self):
            Counted.looks += 1
            return super().items()

    calls = []
    for n in (500, 2000):
        structure, _ = structure_of({"a": many(n, False)})
        profile = Profile()
        with profile:
            structure.outs({"a": Counted(many(n, False))}, "pull")
            structure.grads({"a": Counted(many(n, False))}, "push")
            apart(structure.empty(), structure.empty())
        calls.append(profile.calls)
    assert Counted.looks == 4
    assert calls[1] < 6 * calls[0]


class Profile:
    """Counts calls of functions of Python and C."""

    def __enter__(self):
        self.calls = 0
        sys.setprofile(self._count)
        return self

    def _count(self, frame, event, argument):
        self.calls += event in ("call", "c_call")

    def __exit__(self, *_):
        sys.setprofile(None)


@pytest.mark.parametrize(
    "paths",
    [[("a/b",), ("a", "b")], [("a", "b/c"), ("a/b", "c")], [("x",), ("a/b",), ("a", "b")]],
)
def test_two_things_of_one_name_are_refused_naming_both(paths):
    with pytest.raises(NamesError) as caught:
        require_distinct(paths)
    text = str(caught.value)
    for path in paths[-2:]:
        assert "params" + "".join(f"[{name!r}]" for name in path) in text


def test_gradients_of_a_mapping_may_be_a_list_in_its_order():
    structure, _ = structure_of({"a": np.zeros(2), "b": {"c": np.zeros(3)}, "n": 3})
    grads = [np.ones(2), np.ones(3)]
    found = structure.grads(grads, "push")
    assert [array is grad for array, grad in zip(found, grads, strict=True)] == [True, True]
    with pytest.raises(ShapeError, match="`a`: expected float64"):
        structure.grads(grads[::-1], "push")
    with pytest.raises(NamesError, match="the 2 arrays of gradients in a list, got a list of 3"):
        structure.grads([*grads, grads[0]], "push")
    for call, text in (
        (lambda: structure.values([*grads, grads[0]], "set"), r"n: 3\}|, or its 2 arrays in a list, got a list of 3"),
        (lambda: structure.outs(grads, "pull"), r"^pull: expected a mapping \{[^}]*\}, got a list of 2$"),
    ):
        with pytest.raises(NamesError, match=text):
            call()
    for steps in (1.5, "1", None, True, -1):
        with pytest.raises(OptionError, match="set steps: expected a whole number from 0"):
            structure.counts(steps, [0, 1], "set steps")


def test_the_hint_of_a_shape_works():
    structure, _ = structure_of({"a": np.zeros((2, 3)), "b": np.zeros(4)})
    wrong = {"a": np.zeros(6), "b": np.zeros((2, 2))}
    for name in wrong:
        with pytest.raises(ShapeError) as caught:
            structure.grads(wrong, "push")
        hint = re.search(r"pass it as (\.reshape\(.*\))", str(caught.value)).group(1)
        wrong[name] = eval(f"array{hint}", {"array": wrong[name]})
    structure.grads(wrong, "push")


def test_the_hint_of_an_output_works():
    structure, _ = structure_of({"a": np.zeros((2, 3), np.float32)})
    for wrong in (np.zeros((2, 3)), np.zeros(6, np.float32), np.zeros((2, 6), np.float32)[:, ::2]):
        with pytest.raises(ParameterError) as caught:
            structure.outs({"a": wrong}, "pull")
        hint = re.search(r"pass (np\.empty\(.*\)), or omit out=", str(caught.value)).group(1)
        structure.outs({"a": eval(hint)}, "pull")


def test_a_name_of_any_length_makes_a_short_message():
    structure, _ = structure_of({"a": np.zeros(2)})
    with pytest.raises(NamesError) as caught:
        structure.grads({"a": np.zeros(2), "x" * 100_000: np.zeros(2)}, "push")
    assert len(str(caught.value)) < 400
    with pytest.raises(NamesError) as caught:
        structure.grads({"a": np.zeros(2), ("x",) * 100_000: np.zeros(2)}, "push")
    assert len(str(caught.value)) < 400


def test_a_missing_name_is_found_in_time_that_grows_with_the_names_and_not_with_their_square():
    class Name(str):
        hashed = 0

        def __hash__(self):
            Name.hashed += 1
            return super().__hash__()

    hashed = []
    for n in (500, 2000):
        structure, _ = structure_of({Name(i): np.zeros(2) for i in range(n)})
        values = {Name(i): np.zeros(2) for i in range(1, n + 1)}
        Name.hashed = 0
        with pytest.raises(NamesError):
            structure.grads(values, "push")
        hashed.append(Name.hashed)
    assert hashed[1] < 6 * hashed[0]
