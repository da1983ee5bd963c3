"""``python -m holdfast.objectstore``: a store of its own, and a look into one."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from holdfast.objectstore.errors import StoreError
from holdfast.objectstore.server.server import StoreServer, run
from holdfast.objectstore.sizes import format_size
from holdfast.objectstore.stats_command import stats_command


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["stats"]:
        return stats_command(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="python -m holdfast.objectstore",
        description="Serve a shared-memory object store, until Ctrl-C or SIGTERM ends it.",
        epilog="example: python -m holdfast.objectstore --capacity 4GB --socket /run/user/1000/store.sock. "
        "'python -m holdfast.objectstore stats PATH' looks into a store that runs; see 'stats --help'.",
    )
    parser.add_argument("--capacity", help="bytes of the store, such as 4GB; by default 30 %% of the memory")
    parser.add_argument("--socket", help="the path at which clients connect; by default in a fresh private directory")
    parser.add_argument(
        "--spill-directory",
        metavar="PATH",
        help="where the store puts objects that don't fit; by default the first on a disk of $TMPDIR, /tmp, /var/tmp "
        "and ~/.cache",
    )
    parser.add_argument(
        "--spill-limit", metavar="SIZE", help="the most bytes on disk; by default all but 5 %% of the disk"
    )
    parser.add_argument(
        "--no-spill", action="store_true", help="move nothing to disk: a request that finds no room fails"
    )
    options = parser.parse_args(arguments)
    try:
        server = StoreServer(
            options.capacity,
            options.socket,
            spill=not options.no_spill,
            spill_directory=options.spill_directory,
            spill_limit=options.spill_limit,
        )
        run(lambda: _serve(server))
    except (StoreError, ValueError, OSError) as error:
        print(f"holdfast.objectstore: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(server: StoreServer) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with server:
        print(f"serving {format_size(server.stats()['capacity'])} at {server.socket_path}", flush=True)
        await stop.wait()


if __name__ == "__main__":
    sys.exit(main())
