"""What a sweep measures, from the command line's words."""

import pytest

from bench.harness.arguments import ArgumentError, counts, names, size, sizes
from bench.sweep.grid import Grid, Setting


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("80", 80), ("8K", 8_000), ("8k", 8_000), ("1.5M", 1_500_000), ("2GiB", 2 << 30), ("64 MB", 64_000_000), ("7", 4),
     ("1KiB", 1024), ("4B", 4)],
)  # fmt: skip
def test_a_size_is_bytes_in_whole_elements(text, nbytes):
    assert size(text) == nbytes


@pytest.mark.parametrize("text", ["", "8X", "-8K", "K", "3", "0", "2TiB", "1PiB", "9999G", "8 K B", "1e6", "nan"])
def test_what_is_no_size_is_refused_in_one_line_that_quotes_it(text):
    with pytest.raises(ArgumentError) as error:
        size(text)
    assert repr(text) in str(error.value)
    assert "\n" not in str(error.value)


def test_lists_keep_their_order_and_drop_what_comes_again():
    assert sizes("8K,80,8000") == [8000, 80]
    assert counts("2, 1,2", "shards", 4) == [2, 1]
    assert names("push,pull,push", "ops", ("pull", "push")) == ["push", "pull"]


@pytest.mark.parametrize("text", ["0", "65", "a", "1,", "1.5", "-1", ""])
def test_wrong_counts_are_refused_with_their_range(text):
    with pytest.raises(ArgumentError, match="workers: expected whole numbers from 1 to 64"):
        counts(text, "workers", 64)


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ArgumentError, match="ops: expected some of pull, push, separated by commas, got 'pusj'"):
        names("pull,pusj", "ops", ("pull", "push"))


def grid(**given):
    values = {
        "nbytes": (80, 8), "shards": (1, 4), "workers": (2, 1), "rules": ("add",),
        "ops": ("pull",),
    }  # fmt: skip
    return Grid(**{**values, **given})


def test_every_combination_comes_once_the_small_ones_first_without_empty_shards():
    found = list(grid().settings())
    assert found[0] == Setting(8, 1, 1, "add")
    assert len(found) == len(set(found)) == 6  # 8 bytes are two elements: not for four shards
    assert [setting.nbytes for setting in found] == sorted(setting.nbytes for setting in found)


def test_every_placement_is_measured():
    found = list(grid(nbytes=(80,), shards=(1,), workers=(1,), placements=("local", "spread")).settings())
    assert found == [Setting(80, 1, 1, "add", placement="local"), Setting(80, 1, 1, "add", placement="spread")]


def test_what_does_not_fit_memory_is_refused_before_anything_is_measured():
    big = grid(nbytes=(80, 1 << 30), rules=("add", "adam"))
    worst = max(setting.memory for setting in big.settings())
    big.require_memory(worst)
    with pytest.raises(ArgumentError, match=r"sizes, workers: 1 GiB with 2 workers and adam takes about 32\.4 GiB"):
        big.require_memory(worst - 1)


def test_a_grid_of_nothing_is_refused():
    with pytest.raises(ArgumentError, match="nothing to measure"):
        grid(nbytes=(4,), shards=(2, 4)).require_memory(1 << 40)
