"""A question as a command of ``python -m bench``: the options that all have, and its exit code."""

from __future__ import annotations

import functools
import math
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from bench.harness.arguments import names
from bench.harness.bars import Report


def sections_of(sections: Iterable[str]) -> Callable[..., Any]:
    """The option with which some sections of a question are chosen."""
    known = tuple(sections)
    parse = Parsed(lambda text: names(text, "sections", known))
    return click.option("--sections", type=parse, default=",".join(known), help=f"some of {','.join(known)} (all)")


QUICK = "little of everything: answers are checked, times say nothing"


class Parsed(click.ParamType):
    """The value of an option, by a function that raises ValueError with one line that says what is wrong. --help shows
    `name` for it."""

    def __init__(self, parse: Callable[[str], Any], name: str = "list") -> None:
        self.parse, self.name = parse, name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.parse(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Number(click.FloatRange):
    """A number from `least` to `most`. NaN is refused, which click takes: it is neither less than the one nor more than
    the other."""

    def __init__(self, least: float, most: float) -> None:
        super().__init__(least, most)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"expected a number from {self.min:g} to {self.max:g}, got {value}", param, ctx)
        return number


SECONDS = Number(0.001, 600)  # of measuring


def json_file(text: str) -> Path:
    """Where the result goes. Asked before anything is measured, which takes minutes; nothing is overwritten."""
    path = Path(text)
    if path.suffix != ".json" or not os.access(path.parent, os.W_OK):
        raise ValueError(f"expected a name that ends in .json in a directory that can be written, got {text!r}")
    if path.exists():
        raise ValueError(f"{text} is there already; take another name, or remove it first")
    return path


def question(**quick: Any) -> Callable[[Callable[..., None]], click.Command]:
    """Makes a command of a function that measures, of a `Report` and its own options; `quick` has the values that these
    options take with --quick. The help is the text at the head of its file."""

    def choose(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            context.default_map = quick

    def made(measure: Callable[..., None]) -> click.Command:
        @functools.wraps(measure)
        def run(json_path: Path | None, **options: Any) -> None:
            report = Report()
            measure(report, **options)
            sys.exit(report.end(json_path))

        run = click.option("--json", "json_path", type=Parsed(json_file, "file"), help="a new file for the lines")(run)
        run = click.option("--quick", is_flag=True, is_eager=True, expose_value=False, callback=choose, help=QUICK)(run)
        command = click.command(help=sys.modules[measure.__module__].__doc__)(run)
        assert quick.keys() <= {parameter.name for parameter in command.params}
        return command

    return made
