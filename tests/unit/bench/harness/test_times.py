"""Sizes in words."""

import pytest

from bench.harness.arguments import UNITS
from bench.harness.units import human_bytes


@pytest.mark.parametrize("text", ["80 B", "8 KB", "1.5 MB", "64 MB", "900 GB", "3 TB", "1 KiB", "2 GiB", "512 MiB"])
def test_a_size_is_told_in_the_unit_that_it_was_given_in(text):
    number, unit = text.split()
    assert human_bytes(round(float(number) * UNITS[unit.upper()])) == text
