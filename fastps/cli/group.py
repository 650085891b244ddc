"""Groups of commands."""

from __future__ import annotations

import click


class Group(click.Group):
    """Commands in the order of their table, whose options may be abbreviated."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, words = super().resolve_command(ctx, args)
        options = [option for parameter in (command.params if command else ()) for option in parameter.opts]
        return name, command, [_in_full(word, options) for word in words]


def _in_full(word: str, options: list[str]) -> str:
    """The option that an abbreviation stands for, if only one begins so: --epoch for --epochs."""
    name, equals, value = word.partition("=")
    if not word.startswith("--"):  # `options` has the names of arguments too
        return word
    fitting = [option for option in options if option.startswith(name)]
    return f"{fitting[0]}{equals}{value}" if len(fitting) == 1 and len(name) > len("--") else word
