"""The hosts that were given up and may come back: so that people see where a host is that isn't there."""

from __future__ import annotations

import time
from typing import Any

#: Those that were given up last are known.
MAX_ABSENT = 100


class Absent:
    """Hosts that the scheduler does not hear of any more."""

    def __init__(self) -> None:
        self._hosts: dict[str, dict[str, Any]] = {}  # by address, in the order in which they were given up

    def gave_up(self, address: str, hostname: str, reason: str) -> None:
        """A host that may live isn't part of the cluster any more."""
        self._hosts.pop(address, None)
        self._hosts[address] = {"address": address, "hostname": hostname, "reason": reason, "time": time.time()}
        if len(self._hosts) > MAX_ABSENT:
            del self._hosts[next(iter(self._hosts))]

    def joined(self, address: str, hostname: str) -> None:
        """A host has come: one that was given up, another agent in its place, or a new one."""
        for absent in [one for one in self._hosts.values() if address == one["address"] or hostname == one["hostname"]]:
            del self._hosts[absent["address"]]

    def describe(self) -> list[dict[str, Any]]:
        """For people: the ``address`` and ``hostname`` of each, the ``reason``, and how many ``seconds`` ago it was."""
        now = time.time()
        return [
            {**{name: host[name] for name in ("address", "hostname", "reason")}, "seconds": now - host["time"]}
            for host in self._hosts.values()
        ]
