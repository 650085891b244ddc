"""What a table says of arguments that do not do, without Ray."""

import numpy as np
import pytest

from fastps import Table
from fastps.client.attach import attachments
from fastps.errors import DtypeError
from fastps.server.reader import reader_of
from fastps.testing.local import LocalServer


@pytest.fixture
def table():
    with LocalServer({"t": Table(2)}) as server:
        yield reader_of(server.spec)["t"]
    attachments.drop(server.spec.server_id)


@pytest.mark.parametrize("out", [[0], [[0.0, 0.0]], "text", np.ma.zeros((1, 2), np.float32)], ids=str)
def test_an_out_that_is_no_array_is_told_to_be_a_new_one_since_a_copy_of_it_would_be_lost(table, out):
    with pytest.raises(DtypeError, match=r"; pass np\.empty\(\(1, 2\), np\.float32\), or omit out=$"):
        table.peek([1], out=out)
    assert table.peek([1], out=np.empty((1, 2), np.float32)).shape == (1, 2)


def test_in_refuses_a_key_of_another_kind_as_every_verb_does(table):
    """A typing error is told, and no False."""
    for ask in (lambda key: key in table, lambda key: table.contains([key]), lambda key: table.peek([key])):
        with pytest.raises(DtypeError, match="str 'a' among the keys; pass integers"):
            ask("a")
    assert 3 not in table
