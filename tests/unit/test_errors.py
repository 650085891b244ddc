import builtins
import inspect
import pickle

import pytest

import fastps
from fastps import errors

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


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_survives_pickling_with_its_text(cls, protocol):
    again = pickle.loads(pickle.dumps(cls("what `w` did"), protocol))
    assert type(again) is cls
    assert str(again) == "what `w` did"


def test_an_arena_error_keeps_its_errno_through_pickling():
    again = pickle.loads(pickle.dumps(errors.ArenaError(13, "shard 1: no")))
    assert again.errno == 13
    assert "shard 1: no" in str(again)


def test_a_wait_timeout_error_keeps_its_shards_but_not_its_resume_through_pickling():
    error = errors.WaitTimeoutError("slow", (0,), (1,), (2, 3), resume=object())
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.applied, again.partial, again.pending) == ("slow", (0,), (1,), (2, 3))
    assert again.resume is None


def test_a_names_error_shows_its_text_and_not_its_repr():
    assert str(errors.NamesError("missing ['a']")) == "missing ['a']"
