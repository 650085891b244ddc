"""The names of the state of a server in one flat dict."""

import numpy as np
import pytest

from fastps import SGD, Adam, LocalSGD, NamesError, OptionError, Table
from fastps.spec.state import state_names_of
from fastps.testing.local import LocalServer


def names_of(params, **options):
    with LocalServer(params, **options) as server:
        return state_names_of(server.spec, "state_dict")


def test_parameters_have_their_own_names_and_everything_else_has_a_prefix():
    weight = np.zeros(2)
    names = names_of(
        {"a.w": weight, "in": [{"b/c": np.zeros(3)}], "tied": weight, "n": np.arange(2), "said": "so"},
        rule={"a*": Adam(0.1), "*": SGD(0.1)},
    )
    assert list(names) == [
        "a.w", "in/0/b/c", "tied", "n", "fastps:slots/m/a.w", "fastps:slots/v/a.w", "fastps:steps/a.w",
        "fastps:steps/in/0/b/c",
        *(f"fastps:hyper/{name}/a*" for name in Adam(0.1).hyper),
        *(f"fastps:hyper/{name}/*" for name in SGD(0.1).hyper),
    ]  # fmt: skip
    assert names.params["tied"] == names.params["a.w"]
    assert names.slots["fastps:slots/v/a.w"] == (0, 2)
    assert names.constants == {"said": "so"}
    assert "said" not in names
    assert "n" in names


def test_one_array_is_called_params():
    assert list(names_of(np.zeros(3))) == ["params", "fastps:steps/params"]


def test_copies_of_workers_have_slots_elsewhere():
    assert "fastps:slots/m/params" not in names_of(np.zeros(3), rule=Adam(0.1), consistency=LocalSGD(2))


def test_tables_alone_have_no_state_and_the_prefix_is_reserved():
    with pytest.raises(OptionError, match=r"^state_dict: the server has tables alone"):
        names_of({"t": Table(2)})
    with pytest.raises(NamesError, match="'fastps:x/w'"):
        names_of({"fastps:x": {"w": np.zeros(2)}, "ok": np.zeros(2)})
