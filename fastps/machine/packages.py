"""Packages that are missing, and the command that installs them."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Mapping


def missing(needs: Mapping[str, str]) -> list[str]:
    """Packages that are not installed, of {module: the package that has it}."""
    return [package for module, package in needs.items() if importlib.util.find_spec(module) is None]


def install(*packages: str) -> str:
    """The command that installs packages for the running Python. It names packages of the index and not an extra of
    fastps: that depends on how fastps was installed, from a checkout or a wheel."""
    return shlex.join([sys.executable, "-m", "pip", "install", *packages])
