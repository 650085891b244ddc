"""What to type where a package is missing."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Mapping


def missing(needs: Mapping[str, str]) -> list[str]:
    """The packages that are not there, of {the name that is imported: the package that has it}."""
    return [package for module, package in needs.items() if importlib.util.find_spec(module) is None]


def install(*packages: str) -> str:
    """The command that installs packages for the Python that runs: from an index, where they are whatever fastps was
    installed from, a checkout or a wheel."""
    return shlex.join([sys.executable, "-m", "pip", "install", *packages])
