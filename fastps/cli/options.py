"""Options that commands share, the types of their values, and the packages that a command needs.

A type is a function of the text. It raises BadParameter: "expected ..., got ...".
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fastps.cluster.address import require_reachable
from fastps.machine.packages import install, missing

Decorator = Callable[[Any], Any]


class MissingPackage(click.ClickException):
    """A package that the command needs is not installed."""

    exit_code = 2


def require(needs: dict[str, str]) -> None:
    """Raises MissingPackage unless all are installed of {the name that is imported: the package that has it}."""
    absent = missing(needs)
    if absent:
        raise MissingPackage(f"needs {' and '.join(absent)}: {install(*absent)}")


def number(least: float, most: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise click.BadParameter(f"expected a number from {least:g} to {most:g}, got {text!r}")
        return value

    return number


def whole(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise click.BadParameter(f"expected a whole number from {least} to {most}, got {text!r}")
        return value

    return number


def page(text: str) -> Path:
    """A file that can be written. Checked before the training, which takes a while."""
    path = Path(text)
    if path.suffix not in (".html", ".htm"):
        raise click.BadParameter(f"expected a file that ends in .html, got {text!r}")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise click.BadParameter(f"expected a file that can be written, got {text!r}")
    return path


def directory(text: str) -> Path:
    """A directory that exists or can be created. Checked before the training, as by `page`."""
    path = Path(text)
    existing = path if path.exists() else path.parent
    if not text or not existing.is_dir() or not os.access(existing, os.W_OK):
        raise click.BadParameter(f"expected a directory that can be written, got {text!r}")
    return path


def path(text: str) -> Path:
    """Any path; what is there is found when it is used."""
    if not text:
        raise click.BadParameter("expected a path, got ''")
    return Path(text)


def one_of(*known: str) -> Callable[[str], str]:
    def choice(text: str) -> str:
        if text not in known:
            raise click.BadParameter(f"expected one of {', '.join(known)}, got {text!r}")
        return text

    return choice


def cluster(text: str) -> str:
    """The address of a running Ray cluster, or auto."""
    try:
        if text != "auto":
            require_reachable(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return text


def seed(drawn: str) -> Decorator:
    """The option, which says what is drawn."""
    return click.option("--seed", type=whole(0, 2**32 - 1), default=1, help=f"Random seed of {drawn}.")


shards = click.option("--shards", type=whole(1, 64), default=2, help="Shards that hold the parameters.")
address = click.option(
    "--address",
    type=cluster,
    metavar="ADDRESS",
    help="HOST:PORT of a running Ray cluster, or auto: the one on this machine.",
    show_default="RAY_ADDRESS, or a new cluster",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
