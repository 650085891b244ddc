import builtins
import concurrent.futures
import copy
import inspect
import multiprocessing
import pickle

import pytest

import fastps
from fastps import errors
from tests.support.waiting import GUARD_SECONDS

CLASSES = [getattr(errors, name) for name in errors.__all__]


def documented_tree():
    """(name, parent, builtin) of every line of the drawing in the module's docstring."""
    drawing = inspect.getdoc(errors).split("\n\n")[1]
    stack, rows = [], []
    for line in drawing.splitlines():
        name = line.replace("|", " ").replace("+--", "   ").split()[0]
        depth = line.index(name)
        while stack and stack[-1][0] >= depth:
            stack.pop()
        builtin = line.partition("(")[2].partition(")")[0] if "(" in line else None
        rows.append((name, stack[-1][1] if stack else None, builtin))
        stack.append((depth, name))
    return rows


@pytest.mark.parametrize(("name", "parent", "builtin"), documented_tree())
def test_the_drawn_tree_is_the_tree(name, parent, builtin):
    cls = getattr(errors, name)
    if parent:
        assert cls.__bases__[0] is getattr(errors, parent)
    if builtin:
        assert issubclass(cls, getattr(builtins, builtin))


def test_the_drawing_and_all_name_every_error_class():
    defined = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    assert {name for name, _, _ in documented_tree()} == defined == set(errors.__all__)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_is_a_fastps_error_and_more_than_exception(cls):
    assert issubclass(cls, errors.FastPSError)
    assert getattr(fastps, cls.__name__) is cls
    if cls is not errors.FastPSError:
        assert any(
            base.__module__ == "builtins" and base not in (Exception, BaseException, object) for base in cls.__mro__
        )


def sample(cls):
    """An error with all that one can hold: arguments of its own, a note, an attribute that somebody set, a cause."""
    own = {"table": "t", "capacity": 7, "shard": 3, "applied": (0,), "partial": (1,), "pending": (2, 3)}
    own |= {"message": "what `w` did", "resume": object()}
    names = inspect.signature(cls).parameters if "__init__" in vars(cls) else ()
    error = cls(**{name: own[name] for name in names}) if names else cls("what `w` did")
    error.add_note("the push was applied on shards [0]")
    error.node = "a1b2"
    error.__cause__ = OSError("no room")
    error.__cause__.__cause__ = KeyError("w")
    return error


def sample_of(name):
    """In another process."""
    return sample(getattr(errors, name))


def raise_sample_of(name):
    error = sample_of(name)
    raise error from error.__cause__


def check_that_it_is_the_sample(again):
    cls = type(again)
    expected = sample(cls)
    assert str(again) == "what `w` did"
    assert again.args == expected.args
    notes = ["the push was applied on shards [0]", "caused by OSError: no room", "caused by KeyError: 'w'"]
    assert again.__notes__ == notes
    attributes = {**vars(expected), "__notes__": notes}
    if "resume" in attributes:
        attributes["resume"] = None
    assert vars(again) == attributes


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_keeps_text_notes_attributes_and_causes_through_pickling(cls):
    error = sample(cls)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol))
        assert type(again) is cls
        check_that_it_is_the_sample(again)
        check_that_it_is_the_sample(pickle.loads(pickle.dumps(again, protocol)))
    assert error.__notes__ == ["the push was applied on shards [0]"]  # that of the original stays as it is


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
@pytest.mark.parametrize("cls", CLASSES)
def test_a_copy_of_every_error_has_text_notes_attributes_and_causes(cls, copied):
    error = sample(cls)
    again = copied(error)
    assert type(again) is cls
    check_that_it_is_the_sample(again)
    again.add_note("of the copy alone")
    assert "of the copy alone" not in error.__notes__


@pytest.fixture(scope="module")
def pool():
    with multiprocessing.get_context("fork").Pool(1) as pool:
        yield pool
        pool.close()
        pool.join()


@pytest.fixture(scope="module")
def executor():
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as executor:
        yield executor


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_comes_whole_out_of_pools_of_processes(cls, pool, executor):
    check_that_it_is_the_sample(pool.apply(sample_of, (cls.__name__,)))
    for call in (
        lambda: pool.apply(raise_sample_of, (cls.__name__,)),
        lambda: executor.submit(raise_sample_of, cls.__name__).result(GUARD_SECONDS),
    ):
        with pytest.raises(cls) as caught:
            call()
        check_that_it_is_the_sample(caught.value)


def test_an_arena_error_keeps_its_errno_through_pickling():
    again = pickle.loads(pickle.dumps(errors.ArenaError(13, "shard 1: no")))
    assert again.errno == 13
    assert "shard 1: no" in str(again)


def test_a_names_error_shows_its_text_and_not_its_repr():
    assert str(errors.NamesError("missing ['a']")) == "missing ['a']"
