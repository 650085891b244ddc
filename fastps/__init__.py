"""fastps: a parameter server as a Python library.

>>> import numpy as np, fastps
>>> with fastps.ParameterServer(np.zeros(3, np.float32)) as ps:  # doctest: +SKIP
...     ps.push(np.ones(3, np.float32))
...     ps.pull()
array([1., 1., 1.], dtype=float32)

Importing fastps loads numpy and the compiled core; Ray is loaded with the first use of ParameterServer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastps import _core as _core
from fastps import errors
from fastps import init as init
from fastps import schedules as schedules
from fastps.consistency import BSP, SSP, Async, LocalSGD
from fastps.errors import *  # noqa: F403  # the exception tree is public as a whole
from fastps.outcome import Outcome, outcome_of
from fastps.rules import (
    DCASGD,
    FTRL,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Add,
    AMSGrad,
    Lion,
    NAdam,
    ProximalSGD,
    RMSprop,
    RowAdagrad,
    Rule,
    rule,
)  # fmt: skip

if TYPE_CHECKING:
    from fastps.client.future import Future
    from fastps.client.view import View
    from fastps.server.find import get, servers
    from fastps.server.handle import ParameterServer
    from fastps.server.reader import Reader
    from fastps.server.restore import restore
    from fastps.spec.table import Table
    from fastps.tables.handle import TableHandle
    from fastps.tables.reader import TableReader
    from fastps.tables.reading import TableStats

__version__ = "0.1.0"
__all__ = [
    "BSP", "DCASGD", "FTRL", "SGD", "SSP", "AMSGrad", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Add", "Async",
    "Future", "Lion", "LocalSGD", "NAdam", "Outcome", "ParameterServer", "ProximalSGD", "RMSprop", "Reader",
    "RowAdagrad", "Rule", "Table", "TableHandle", "TableReader", "TableStats", "View", "get", "init", "outcome_of",
    "restore", "rule", "schedules", "servers",
    *errors.__all__,
]  # fmt: skip

_LAZY = {
    "Future": "fastps.client.future",
    "ParameterServer": "fastps.server.handle",
    "Reader": "fastps.server.reader",
    "Table": "fastps.spec.table",
    "TableHandle": "fastps.tables.handle",
    "TableReader": "fastps.tables.reader",
    "TableStats": "fastps.tables.reading",
    "View": "fastps.client.view",
    "get": "fastps.server.find",
    "restore": "fastps.server.restore",
    "servers": "fastps.server.find",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'fastps' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__all__", "__doc__", "__name__", "__version__", "errors"])
