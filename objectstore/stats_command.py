"""``python -m holdfast.objectstore stats PATH``: what is in a store, for people and, as JSON, for programs."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import stat
import sys
import time
from collections.abc import Callable
from typing import Any

from holdfast.objectstore.client.store import Store, connect
from holdfast.objectstore.errors import StoreError
from holdfast.objectstore.sizes import format_size

_LIMIT = 20
_VIEWERS_SHOWN = 3
_CLEAR = "\x1b[H\x1b[2J"
_SORTS: dict[str, Callable[[dict[str, Any]], float]] = {
    "size": lambda item: item["nbytes"],
    "age": lambda item: item["age"] or 0.0,
    "pins": lambda item: item["pins"],
}
_SORTED_BY = {"size": "largest", "age": "oldest", "pins": "most pinned"}


def stats_command(arguments: list[str]) -> int:
    """Runs the command; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m holdfast.objectstore stats",
        description="Look into a store: how full it is, which client holds what, which client pins what.",
        epilog="example: python -m holdfast.objectstore stats /run/user/1000/store.sock --sort age --limit 5",
    )
    parser.add_argument("path", help="the store's socket, which the server prints when it starts")
    parser.add_argument("--sort", choices=_SORTS, default="size", help="which objects come first (default: size)")
    parser.add_argument("--limit", type=_count, default=_LIMIT, help=f"how many are shown (default: {_LIMIT})")
    parser.add_argument(
        "--watch", type=_seconds, metavar="SECONDS", help="show the store again every so many seconds, until Ctrl-C"
    )
    parser.add_argument("--json", action="store_true", help="print everything, as one JSON object a line")
    options = parser.parse_args(arguments)
    try:
        with connect(options.path, name="stats") as store, contextlib.suppress(KeyboardInterrupt):
            _show(store, options)
            while options.watch is not None:
                time.sleep(options.watch)
                _show(store, options)
    except BrokenPipeError:  # 'stats PATH | head': the reader has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except StoreError as error:
        print(f"holdfast.objectstore: {error}{_hint(options.path)}", file=sys.stderr)
        return 1
    return 0


def _count(text: str) -> int:
    if (count := int(text)) < 0:
        raise ValueError
    return count


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 1e6:
        raise ValueError
    return seconds


def _hint(path: str) -> str:
    """What the user of a path where no store answers might do."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "\nThe path is that of the server's socket; 'python -m holdfast.objectstore' prints it when it starts."
    except OSError:
        return "\nOnly the user who started the store may look into it."
    if stat.S_ISDIR(mode):
        return f"\nIt is a directory; try {os.path.join(path, 'store.sock')}"
    if not stat.S_ISSOCK(mode):
        return "\nIt is not a socket; 'python -m holdfast.objectstore' prints the path of one when it starts."
    return ""


def _show(store: Store, options: argparse.Namespace) -> None:
    stats, objects = store.stats(), store.list()
    objects.sort(key=_SORTS[options.sort], reverse=True)
    if options.json:
        print(json.dumps({"stats": stats, "objects": objects}), flush=True)
        return
    lines = [*_summary(stats), "", *_owners(stats), *_table(objects, options.sort, options.limit)]
    clear = _CLEAR if options.watch is not None and sys.stdout.isatty() else ""
    print(clear + "\n".join(lines), flush=True)


def _summary(stats: dict[str, Any]) -> list[str]:
    used = 100 * stats["used"] / stats["capacity"]
    lines = [
        f"{format_size(stats['used'])} of {format_size(stats['capacity'])} used ({used:.0f} %),"
        f" {format_size(stats['free'])} free, the largest piece {format_size(stats['largest_free'])};"
        f" {format_size(stats['resident'])} of memory taken",
        f"{_many(stats['objects'], 'object')} of {format_size(stats['object_nbytes'] + stats['spilled_nbytes'])},"
        f" {_many(stats['pins'], 'pin')}, {_many(stats['clients'], 'client')}, this one included",
    ]
    if stats["shared_nbytes"]:
        lines.append(f"{format_size(stats['shared_nbytes'])} of that are counted for several objects that share them")
    if stats["spilled"]:
        count, nbytes = _many(stats["spilled"], "object"), format_size(stats["spilled_nbytes"])
        lines.append(f"{count} of {nbytes} on disk, in files of {format_size(stats['spill_file_nbytes'])}")
    if stats["spill_error"]:
        lines.append(f"nothing more can be moved to disk: {stats['spill_error']}")
    if stats["reserved"] or stats["leased_nbytes"]:
        lines.append(
            f"{format_size(stats['reserved_nbytes'])} reserved for {_many(stats['reserved'], 'object')} to come,"
            f" {format_size(stats['leased_nbytes'])} for small ones"
        )
    if stats["waiting_creates"] or stats["waiting_gets"]:
        lines.append(
            f"waiting: {_many(stats['waiting_creates'], 'request')} for room,"
            f" {stats['waiting_gets']} for objects, {_many(stats['fetches'], 'fetch', 'fetches')} under way"
        )
    if stats["deleted_but_pinned"]:
        viewers = ", ".join(f"'{_plain(name)}'" for name in stats["deleted_but_pinned_by"])
        lines.append(f"{format_size(stats['deleted_but_pinned_nbytes'])} deleted but still viewed by {viewers}")
    if stats["quarantined"]:
        lines.append(f"{_many(stats['quarantined'], 'client')} hung up on, whose processes hold what they had")
    return lines


def _owners(stats: dict[str, Any]) -> list[str]:
    largest = sorted(stats["held_by"].items(), key=lambda item: -item[1])
    return [f"{format_size(nbytes):>10}  held by {_plain(owner)}" for owner, nbytes in largest[:_LIMIT]]


def _table(objects: list[dict[str, Any]], sort: str, limit: int) -> list[str]:
    shown = objects[:limit]
    if not shown:
        return []
    title = f"the {_SORTED_BY[sort]} {len(shown)} of {len(objects)}"
    lines = ["", f"{title:<34}{'size':>10}{'age':>9}{'pins':>6}  {'state':<8} owner, key, type; pinned by"]
    for item in shown:
        age = "" if item["age"] is None else _age(item["age"])
        names = ", ".join(_plain(str(item[field])) for field in ("owner", "key", "type") if item[field])
        if viewers := item["pinned_by"]:
            more = f" and {len(viewers) - _VIEWERS_SHOWN} more" if len(viewers) > _VIEWERS_SHOWN else ""
            names += f"; pinned by {', '.join(map(_plain, viewers[:_VIEWERS_SHOWN]))}{more}"
        size = format_size(item["nbytes"])
        lines.append(f"{item['id'] or '':<34}{size:>10}{age:>9}{item['pins']:>6}  {item['state']:<8} {names}")
    return lines


def _many(count: int, one: str, several: str = "") -> str:
    return f"{count} {one if count == 1 else several or one + 's'}"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _plain(text: str) -> str:
    """A name that a client chose, as it can't do anything to a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
