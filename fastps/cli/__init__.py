"""The command line: ``fastps demo``, ``recommend``, ``checkpoint``, ``doctor`` and ``env``, also as ``python -m fastps
demo``.

Exit codes: 0 it worked; 1 it ran, and the result is not what it should be; 2 the command could not be run as asked;
130 interrupted. Every failure is one line on stderr.

Each command has a module, whose `command` returns what is wrong with the result in one line, or None. Modules of
commands import what is heavy when they run: `fastps --help` loads all of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

import fastps
from fastps.cli import checkpoint, demo, doctor, env, recommend
from fastps.cli.columns import printable
from fastps.cli.group import Group
from fastps.errors import FastPSError, OptionError

FAILED, UNUSABLE, INTERRUPTED = 1, 2, 130

# In the order in which --help lists them.
COMMANDS: list[click.Command] = [demo.command, recommend.command, checkpoint.command, doctor.command, env.command]


GROUP = Group(
    "fastps",
    COMMANDS,
    help="A parameter server as a Python library.",
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
click.version_option(fastps.__version__, message="fastps %(version)s")(GROUP)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the program's name; by default those of the process.

    Returns
    -------
    int
        The exit code.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    prog = _program(words)
    try:
        # Not GROUP.main, which prints more than one line.
        with GROUP.make_context("fastps", words.copy()) as context:
            problem: str | None = GROUP.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as end:  # --help, --version
        return end.exit_code
    except click.UsageError as error:
        return _say(prog, f"{_text(error)}; see {prog} --help", UNUSABLE)
    except click.ClickException as error:
        return _say(prog, error.message, error.exit_code)
    except BrokenPipeError:  # the reader of the output has closed it; writing the rest of the buffers would fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _say(prog, "interrupted", INTERRUPTED)
    except ConnectionError as error:  # Ray's, and ShardDiedError
        return _say(prog, str(error).strip().split("\n", 1)[0], FAILED)
    except FastPSError as error:
        return _say(prog, str(error), UNUSABLE if isinstance(error, OptionError) else FAILED)
    return _say(prog, problem, FAILED) if problem else 0


def _program(words: Sequence[str]) -> str:
    """The command that the words begin with, as messages name it."""
    found: list[str] = []
    command: click.Command | None = GROUP
    for word in words:
        command = command.commands.get(word) if isinstance(command, click.Group) else None
        if command is None:
            break
        found.append(word)
    return " ".join(["fastps", *found])


def _text(error: click.UsageError) -> str:
    """One line: the option and what is wrong with it; for an unknown command, the known ones."""
    missing = isinstance(error, click.MissingParameter)
    text = " ".join((error.format_message() if missing else error.message).split()).rstrip(".")
    if isinstance(error, click.BadParameter) and not missing and error.param:
        return f"{error.param.opts[0]}: {text}"
    if error.ctx and isinstance(error.ctx.command, click.Group):
        return f"{text}; the commands are {', '.join(error.ctx.command.commands)}"
    similar = getattr(error, "possibilities", None)
    return f"{text} (did you mean {' or '.join(similar)}?)" if similar else text


def _say(prog: str, message: str, code: int) -> int:
    print(printable(f"{prog}: {message}"), file=sys.stderr)
    return code
