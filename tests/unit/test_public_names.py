"""What `import fastps` shows."""

import fastps


def test_dir_names_what_is_public_and_all_of_it_is_there():
    names = dir(fastps)
    assert {*fastps.__all__, "__version__", "errors"} <= set(names)
    assert [name for name in names if name.startswith("_") and not name.startswith("__")] == []
    assert not {"annotations", "Any", "TYPE_CHECKING"} & set(names)
    assert all(hasattr(fastps, name) for name in names)
