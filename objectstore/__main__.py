"""``python -m holdfast.objectstore``: a store of its own, and a look into one."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from typing import Any

from holdfast.objectstore.client import connect
from holdfast.objectstore.errors import StoreError
from holdfast.objectstore.server import StoreServer, run
from holdfast.objectstore.sizes import format_size

_LISTED = 20


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["stats"]:
        return _stats(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="python -m holdfast.objectstore",
        description="Serves a shared-memory object store until it's told to stop. 'stats PATH' looks into one.",
    )
    parser.add_argument("--capacity", help="such as 4GB; by default 30 %% of the memory")
    parser.add_argument("--socket", help="where clients connect; by default in a fresh private directory")
    options = parser.parse_args(arguments)
    try:
        run(lambda: _serve(options.capacity, options.socket))
    except (StoreError, ValueError, OSError) as error:
        print(f"holdfast.objectstore: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(capacity: str | None, socket_path: str | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with StoreServer(capacity, socket_path) as server:
        print(f"serving {format_size(server.stats()['capacity'])} at {server.socket_path}", flush=True)
        await stop.wait()


def _stats(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m holdfast.objectstore stats", description="Looks into a store.")
    parser.add_argument("path", help="the store's socket")
    parser.add_argument("--json", action="store_true", help="everything, as one JSON object")
    options = parser.parse_args(arguments)
    try:
        with connect(options.path, name="stats") as store:
            stats, objects = store.stats(), store.list()
    except StoreError as error:
        print(f"holdfast.objectstore: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({"stats": stats, "objects": objects}))
    else:
        _print(stats, objects)
    return 0


def _print(stats: dict[str, Any], objects: list[dict[str, Any]]) -> None:
    for name, value in stats.items():
        if isinstance(value, dict):
            continue
        sized = name in {"capacity", "used", "free", "largest_free", "resident"} or name.endswith("nbytes")
        print(f"{name:<28}{format_size(value) if sized else value}")
    for owner, nbytes in sorted(stats["held_by"].items(), key=lambda item: -item[1]):
        print(f"{'held by ' + owner:<28}{format_size(nbytes)}")
    if objects:
        print(f"\n{'the largest objects':<34}{'size':>10}{'age':>9}{'pins':>6}  state    owner, key, type")
    for item in sorted(objects, key=lambda item: -item["nbytes"])[:_LISTED]:
        age = "" if item["age"] is None else f"{item['age']:.0f} s"
        names = ", ".join(str(item[field]) for field in ("owner", "key", "type") if item[field])
        size = format_size(item["nbytes"])
        print(f"{item['id'] or '':<34}{size:>10}{age:>9}{item['pins']:>6}  {item['state']:<8} {names}")


if __name__ == "__main__":
    sys.exit(main())
