"""What a reader's arrays refuse, without Ray."""

import pickle

import numpy as np
import pytest

from fastps.client.array import CHANGES, ArrayReader
from fastps.client.attach import attachments
from fastps.client.refusal import Refusal, verbs_of
from fastps.errors import ReadOnlyError
from fastps.server.reader import reader_of
from fastps.server.verbs import ArrayVerbs
from fastps.tables.reader import TableReader
from fastps.testing.local import LocalServer


@pytest.fixture
def reader():
    with LocalServer({"w": np.ones(3)}) as server:
        yield reader_of(server.spec)
    attachments.drop(server.spec.server_id)


@pytest.mark.parametrize("verb", sorted(CHANGES))
def test_an_array_of_a_reader_refuses_what_changes_it_as_the_reader_does(reader, verb):
    for array in (reader["w"], pickle.loads(pickle.dumps(reader["w"]))):
        with pytest.raises(ReadOnlyError, match=rf"^{verb}: .*handle that ParameterServer\(\) or fastps\.get\(\)"):
            getattr(array, verb)(np.ones(3))
    with pytest.raises(ReadOnlyError, match=f"^{verb}: "):
        getattr(reader, verb)({"w": np.ones(3)})


def test_it_still_reads_and_says_what_it_is(reader):
    assert reader["w"].pull().tolist() == reader["w"].view().tolist() == [1, 1, 1]
    assert type(reader["w"]) is ArrayReader
    assert repr(reader["w"]) == "<reader of array `w`: float64[3]>"


def test_what_changes_an_array_is_what_a_handle_of_a_server_and_one_of_a_table_have_and_their_readers_have_not():
    changes = {verb for verb in verbs_of(TableReader) if isinstance(getattr(TableReader, verb), Refusal)}
    assert {verb for verb in changes & verbs_of(ArrayVerbs) if verb not in ("pull", "pull_async")} == CHANGES
