"""The command line, ``holdfast``. One module a group of commands, imported when one of them is called."""

from __future__ import annotations

import contextlib
import difflib
import importlib
from typing import Any

import click

import holdfast

_COMMANDS = {
    "start": "start",
    "stop": "stop",
    "status": "status",
    "memory": "memory",
    "explain": "explain",
    "datasets": "datasets",
    "state": "state_directory",
    "logs": "logs",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"holdfast.cluster.cli.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], _COMMANDS, 1)
            if not near:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", error.ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        # Imported here: 'holdfast --version' needs none of it.
        from holdfast.cluster.processes import run_directory
        from holdfast.objectstore.errors import HoldfastError
        from holdfast.objectstore.system.surroundings import fill_standard_descriptors

        fill_standard_descriptors()
        with contextlib.suppress(HoldfastError, OSError):  # the command that needs such a place says what is wrong
            run_directory.sweep()
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, BrokenPipeError):  # click knows what to do about a reader that has had enough
            raise
        except (HoldfastError, OSError, ValueError, TypeError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(holdfast.__version__, prog_name="holdfast", message="%(prog)s %(version)s")
def main() -> None:
    """Start, look at and stop Holdfast clusters.

    \b
    Examples:
      holdfast start --head                    start a cluster on this machine
      holdfast start --address 10.0.0.1:8786   let this machine join the cluster there
      holdfast status                          show its hosts, workers, stores and tasks
      holdfast memory                          show its objects: size, owner, holders, where they lie
      holdfast explain KEY                     show why a task is in its state, and what keeps its result
      holdfast datasets list                   show what is published, and what of it is durable
      holdfast state inspect                   show what the scheduler has written down, and whether it is whole
      holdfast logs --follow                   show what its processes log, and what tasks print
      holdfast stop                            stop what was started here
    """
