"""Amounts of memory in words."""

import pytest

from bench.timing import human_bytes
from fastps.amounts import binary


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (8 << 20, "8 MiB"), (int(1.456 * 2**30), "1.46 GiB"),
     (1023 << 30, "1023 GiB"), (1 << 40, "1 TiB"), (5000 << 40, "5000 TiB")],
)  # fmt: skip
def test_an_amount_has_the_unit_that_fits_it(count, text):
    assert binary(count) == text


@pytest.mark.parametrize("text", ["80 B", "8 KB", "1.5 MB", "64 MB", "900 GB", "3 TB", "1 KiB", "2 GiB", "512 MiB"])
def test_a_size_is_told_in_the_unit_that_it_was_given_in(text):
    from bench.sweep.grid import UNITS

    number, unit = text.split()
    assert human_bytes(round(float(number) * UNITS[unit.upper()])) == text
