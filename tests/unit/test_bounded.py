"""What is kept up to a size."""

from fastps.bounded import Bounded


def test_the_values_are_dropped_when_the_next_one_exceeds_a_bound():
    kept = Bounded[str, int](3, 10)
    for i, key in enumerate("abc"):
        assert kept.get(key) is None
        assert kept.keep(key, i, 2) == i
    assert (len(kept), kept.size, kept.get("a"), kept.get("c")) == (3, 6, 0, 2)
    kept.keep("d", 3, 2)
    assert (len(kept), kept.size, kept.get("a"), kept.get("d")) == (1, 2, None, 3)
    kept.keep("e", 4, 9)
    assert (len(kept), kept.size, kept.get("d"), kept.get("e")) == (1, 9, None, 4)


def test_a_value_larger_than_the_bound_is_kept_alone():
    kept = Bounded[str, int](3, 10)
    kept.keep("a", 1, 1)
    kept.keep("b", 2, 11)
    assert (len(kept), kept.get("b")) == (1, 2)
    kept.keep("c", 3, 1)
    assert (len(kept), kept.size, kept.get("c")) == (1, 1, 3)
