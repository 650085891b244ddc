"""What travels pickled, and what it says where it cannot be: functions for the shards' processes, specs for handles.

Users' functions (rules, schedules, `on_evict`) are pickled with their code: those processes may lack the `sys.path`
entry of the module, or have started before it was edited. Installed modules are pickled by name. The classes of
parameters' containers are pickled by name, so that what comes out is of the class that the reader of it knows.
"""

from __future__ import annotations

import pickle
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ray import cloudpickle

from fastps.errors import ParameterError, RuleError


def packed_functions(value: Any) -> bytes:
    """Raises RuleError for what cannot be pickled."""
    try:
        with _by_value(_of_the_user()):
            return bytes(cloudpickle.dumps(value))
    except Exception:  # a module that is referred to as a whole may contain anything
        try:
            return bytes(cloudpickle.dumps(value))
        except Exception as error:
            raise RuleError(
                f"create: a rule, a schedule or on_evict refers to what cannot be sent to the shards' processes "
                f"({type(error).__name__}: {str(error).splitlines()[0]}); refer to numbers and functions only"
            ) from error


def functions(data: bytes) -> Any:
    """What was packed. Raises RuleError where this process lacks a module."""
    try:
        return pickle.loads(data)
    except (ImportError, AttributeError) as error:
        raise RuleError(
            f"create: a rule, a schedule or on_evict needs {_missing(error)}, which the shards' processes cannot "
            f"import; {REMEDY}"
        ) from error


def packed_spec(spec: Any) -> bytes:
    """The spec with its containers."""
    return bytes(cloudpickle.dumps(spec))


def spec(data: bytes, verb: str) -> Any:
    """The spec that was packed. Raises ParameterError where this process lacks the module of a class."""
    try:
        return pickle.loads(data)
    except (ImportError, AttributeError) as error:
        raise ParameterError(
            f"{verb}: the server's parameters are in containers of {_missing(error)}, which this process cannot "
            f"import; {REMEDY}"
        ) from error


REMEDY = (
    "put its folder into PYTHONPATH before Ray starts, or say "
    "ray.init(runtime_env={'env_vars': {'PYTHONPATH': folder}})"
)


def _missing(error: ImportError | AttributeError) -> str:
    name = getattr(error, "name", None)
    return f"the module {name!r}" if isinstance(error, ImportError) and name else str(error)


def _of_the_user() -> list[ModuleType]:
    """The loaded modules that are written in Python and not installed."""
    return [
        module
        for name, module in list(sys.modules.items())
        if isinstance(module, ModuleType) and module.__name__ == name and name.split(".")[0] != "fastps"
        if (getattr(module, "__file__", None) or "").endswith(".py") and not _is_installed(Path(str(module.__file__)))
    ]


def _is_installed(file: Path) -> bool:
    library = Path(sysconfig.get_path("stdlib"))
    return any(folder == library or folder.name in ("site-packages", "dist-packages") for folder in file.parents)


@contextmanager
def _by_value(modules: list[ModuleType]) -> Iterator[None]:
    chosen = [m for m in modules if m.__name__ not in cloudpickle.list_registry_pickle_by_value()]
    for module in chosen:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in chosen:
            cloudpickle.unregister_pickle_by_value(module)
