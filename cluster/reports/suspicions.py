"""Which objects may be there for nobody: each suspicion with its reason, and what can be done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.cluster.reports import phrases
from holdfast.cluster.tables import count, format_duration, size

_KEYS_SHOWN = 3


def in_words(suspect: Mapping[str, Any]) -> str:
    """One suspicion as sentences: what there is, why it is suspected, and the way out."""
    what = f"{size(suspect['nbytes'])} in {count(suspect['objects'], 'object')}"
    holders = phrases.few([phrases.holder(each) for each in suspect["holders"]])
    line = f", made by the line {suspect['call_site']}," if suspect.get("call_site") else ""
    keys = [f"{key!r:.100}" for key in suspect.get("keys") or ()][:_KEYS_SHOWN]
    such_as = f" Such as {phrases.few(keys)}." if keys else ""
    oldest, newest = suspect.get("oldest_seconds"), suspect.get("newest_seconds")
    kind = suspect["suspicion"]
    if kind == "idle":
        return (
            f"{what}{line} only {holders} {_keep(suspect)}: there for {format_duration(oldest)}. If it is forgotten, "
            f"end that process, or release its futures.{such_as}"
        )
    if kind == "growing":
        return (
            f"{what}{line} only {holders} keeps, and there are more and more: the oldest is there for "
            f"{format_duration(oldest)}, the newest for {format_duration(newest)}. Look for a container there that "
            f"only grows.{such_as}"
        )
    if kind == "queue":
        return (
            f"{what} only {holders} keeps, for up to {format_duration(oldest)}: nobody takes it out. Get the items, or "
            f"close the queue.{such_as}"
        )
    if kind == "cycle":
        return (
            f"{what} only objects and actors keep that keep each other: no client has a future of them, and they stay. "
            "To free them, cancel one by its key: client.cancel(Future(key, client), force=True). An actor, with all "
            f"that it keeps, ends with its worker (Client.restart_workers).{such_as}"
        )
    host = suspect.get("host") or {}
    names = phrases.few([each["name"] for each in suspect["holders"]])
    return (
        f"{what} of {host.get('name') or host.get('node')} {'is' if suspect['objects'] == 1 else 'are'} deleted, and "
        f"still read by {names}, which {'holds' if len(suspect['holders']) == 1 else 'hold'} views: arrays or frames "
        "that show the memory of the store."
    )


def _keep(suspect: Mapping[str, Any]) -> str:
    return "keeps" if len(suspect["holders"]) == 1 else "keep"
