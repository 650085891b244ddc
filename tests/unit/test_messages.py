"""How messages say lists, values and amounts."""

import pytest

from fastps.messages import binary, brief, few, few_of


def test_a_few_names_are_a_list_and_many_are_counted():
    assert few([]) == "[]"
    assert few(["a", 1]) == "['a', 1]"
    assert few({f"{i}": i for i in range(10_000)}, 2) == "['0', '1', ...] (10,000 in all)"
    assert few_of(iter("abc"), 3) == "a, b, c"
    assert few_of(iter("abc"), 3, 2) == "a, b, and 1 more"


def test_long_names_are_cut():
    assert brief("a") == "'a'"
    assert len(brief("a" * 1000)) < 100
    assert len(few(["a" * 1000] * 1000)) < 1000


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no")


def test_what_cannot_be_printed_is_named_by_its_type():
    assert brief(Unprintable()).startswith("<")
    assert "Unprintable object" in brief(Unprintable())
    assert "int object" in brief(10**5000)  # more digits than Python prints
    assert "int object" in few([10**5000])


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (8 << 20, "8 MiB"), (int(1.456 * 2**30), "1.46 GiB"),
     (1023 << 30, "1023 GiB"), (1 << 40, "1 TiB"), (5000 << 40, "5000 TiB")],
)  # fmt: skip
def test_an_amount_has_the_unit_that_fits_it(count, text):
    assert binary(count) == text
