"""``holdfast logs``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from holdfast.cluster.cli.find import address_option
from holdfast.cluster.cli.log_lines import Line, LogFile, in_order
from holdfast.cluster.comm.addresses import format_address, parse_address
from holdfast.cluster.processes import log_files, run_directory
from holdfast.objectstore.errors import HoldfastError

#: How often `--follow` looks for more.
FOLLOW_SECONDS = 0.2
NAME_WIDTH_MAX = 30
_COLOURS = ("cyan", "green", "yellow", "blue", "magenta")


@click.command()
@click.option(
    "--worker",
    "workers",
    multiple=True,
    metavar="NAME",
    help="Show only the lines of this worker, as 'holdfast status' calls it, or of 'scheduler', 'node-0', "
    "'fork-server' or 'service'. Give the option several times for several of them.",
)
@click.option("--follow", "-f", is_flag=True, help="Go on with the lines that are written from now on, until Ctrl-C.")
@click.option(
    "--lines",
    "-n",
    type=click.IntRange(0),
    default=200,
    show_default=True,
    help="How many of the last lines are shown; 0: all.",
)
@click.option(
    "--log-directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="PATH",
    help="Read the logs in this directory, as 'holdfast start --log-directory PATH' has named it, whether that cluster "
    "runs or not.",
)
@address_option
def logs(workers: tuple[str, ...], follow: bool, lines: int, log_directory: Path | None, address: str | None) -> None:
    """Show what a cluster's processes here have logged and printed.

    Each line begins with the name of the process that wrote it. Then come the time and a level (OUT and ERR for what
    was printed), and in a worker's lines, in brackets, the key of the task that wrote them.

    Without a cluster that runs here, the logs of the last one are shown. The logs of another host are on that host.

    \b
    Examples:
      holdfast logs
      holdfast logs --follow
      holdfast logs --worker laptop-0 --lines 50
    """
    directories = [log_directory] if log_directory is not None else _directories(address)
    files = _Files(directories, workers)
    files.look()
    files.check()
    printed = in_order(line for file in files for line in file.last(lines or None))
    printer = _Printer(files)
    printer.show(printed[-lines:] if lines else printed)
    if follow:
        with contextlib.suppress(KeyboardInterrupt):
            _follow(files, printer, None if log_directory is not None else directories)


def _follow(files: _Files, printer: _Printer, directories: list[Path] | None) -> None:
    """Show what comes, until the clusters whose directories these are have ended."""
    while True:
        runs = directories is None or not {str(path) for path in directories}.isdisjoint(
            str(service.get("log_directory")) for service in _services()
        )
        files.look()
        news = [line for file in files for line in file.news()]
        printer.show(in_order(news))
        if news:
            continue
        if not runs:
            click.echo("The cluster has ended.", err=True)
            return
        time.sleep(FOLLOW_SECONDS)


class _Files:
    """The logs in some directories, of some processes or of all."""

    def __init__(self, directories: Iterable[Path], names: tuple[str, ...]) -> None:
        self._directories = list(directories)
        self._names = names
        self._files: dict[Path, LogFile] = {}

    def __iter__(self) -> Iterator[LogFile]:
        return iter(list(self._files.values()))

    def look(self) -> None:
        """Find those that have come: a worker's is made when it starts."""
        for directory in self._directories:
            for path in sorted(directory.glob("*.log")):
                if path not in self._files and self._is_wanted(path):
                    self._files[path] = LogFile(path)

    def check(self) -> None:
        """Raise if there is none."""
        if self._files:
            return
        places = ", ".join(map(str, self._directories))
        known = sorted({path.stem for directory in self._directories for path in directory.glob("*.log")})
        if not known:
            raise HoldfastError(f"there are no logs in {places}")
        raise HoldfastError(
            f"there is no log of {' or '.join(map(repr, self._names))} in {places}; there are those of "
            f"{', '.join(known)}. The logs of another host are on that host"
        )

    def _is_wanted(self, path: Path) -> bool:
        return not self._names or any(path == log_files.file_of(path.parent, name) for name in self._names)


class _Printer:
    """Prints lines, each behind the name of its process."""

    def __init__(self, files: _Files) -> None:
        self._width = min(NAME_WIDTH_MAX, max((len(file.name) for file in files), default=0))
        self._colours: dict[str, str] = {}

    def show(self, lines: Iterable[Line]) -> None:
        for line in lines:
            colour = self._colours.setdefault(line.name, _COLOURS[len(self._colours) % len(_COLOURS)])
            click.echo(f"{click.style(line.name.ljust(self._width), fg=colour)} {line.text}")


def _services() -> list[dict[str, Any]]:
    return [each for kind in ("head", "host") for each in run_directory.running(kind) if each.get("log_directory")]


def _directories(address: str | None) -> list[Path]:
    """The directories of the cluster at an address, of all that have processes here, or of the last that had."""
    services = _services()
    if address is not None:
        wanted = format_address(*parse_address(address))
        services = [service for service in services if service.get("address") == wanted]
        if not services:
            if any(each.get("address") == wanted for each in run_directory.running("local")):
                raise HoldfastError(
                    f"the cluster at {wanted} is a LocalCluster: what it logs goes to the standard error of the "
                    "process that made it, or where its log_directory= says (--log-directory reads that)"
                )
            raise HoldfastError(
                f"no part of the cluster at {wanted} was started on this host with 'holdfast start'. Its logs are on "
                "its hosts: run 'holdfast logs' there"
            )
    if services:
        return list(dict.fromkeys(Path(service["log_directory"]) for service in services))
    root = log_files.default_root()
    earlier = [] if root is None or not root.is_dir() else [path for path in root.iterdir() if path.is_dir()]
    if not earlier:
        raise HoldfastError(
            "nothing from 'holdfast start' runs here, and there are no logs of earlier starts. 'holdfast start --head' "
            "starts a cluster"
        )
    last = max(earlier, key=lambda path: path.stat().st_mtime)
    click.echo(f"Nothing from 'holdfast start' runs here. These are the logs of the last start, in {last}:", err=True)
    return [last]
