"""What clients ask about workers that are to go."""

from __future__ import annotations

from holdfast.cluster.protocol.kinds import ADDRESS, SECONDS, TEXT
from holdfast.cluster.protocol.limits import MAX_NAMED
from holdfast.cluster.protocol.message import Request
from holdfast.cluster.protocol.shapes import Boolean, Fields, Integer, Listed, Mapped, Maybe, Number, Plain

_NAMES = Listed(TEXT, MAX_NAMED)
_WORKERS = Mapped(ADDRESS, Plain(), MAX_NAMED)

RETIRE_WORKERS = Request(
    "retire-workers",
    "These workers, by name, address or host, get nothing new to run. What they run gets `grace` seconds to end, and "
    "runs elsewhere then. Of hosts whose last workers they are, all objects get copies elsewhere meanwhile. Then the "
    "workers end, if they are to be closed, and such hosts leave. If something can't be moved, or not within `timeout` "
    "seconds, nothing is closed. The answer describes the workers, by address; it does not wait for their end if "
    "`awaits_end` is false.",
    needed={"workers": _NAMES},
    known={
        "close_workers": Boolean(),
        "close_hosts": Boolean(),
        "awaits_end": Boolean(),
        "grace": SECONDS,
        "timeout": SECONDS,
    },
    answer=_WORKERS,
    waits=True,
)
WORKERS_TO_CLOSE = Request(
    "workers-to-close",
    "The workers that it costs least to close, by their addresses: idle ones first, of hosts with little data. `n` of "
    "them, or as many as leave `target`; else as many idle ones as leave hosts for `memory_ratio` times the bytes that "
    "there are. At least `minimum` stay. Workers of one group, which `groups` has by their addresses, go together.",
    known={
        "n": Maybe(Integer(0)),
        "target": Maybe(Integer(0)),
        "minimum": Maybe(Integer(0)),
        "memory_ratio": Maybe(Number(0.0, 1e9)),
        "groups": Maybe(Mapped(ADDRESS, TEXT, MAX_NAMED)),
    },
    answer=Listed(ADDRESS),
)
RESTART = Request(
    "restart",
    "All keys that clients hold are cancelled, and new processes take the places of all workers. Datasets stay, with "
    "what they hold. The answer comes when the old ones have left, and with `wait_for_workers` when the new ones are "
    "there. It says of each worker what `restart-workers` says.",
    known={"timeout": SECONDS, "wait_for_workers": Boolean()},
    answer=Fields({"workers": Mapped(ADDRESS, TEXT, MAX_NAMED)}),
    waits=True,
)
RESTART_WORKERS = Request(
    "restart-workers",
    "New processes take the places of these workers; what they ran runs again. The answer says of each whether the new "
    "one is there: `OK`, `timed out`, or `removed` if its host has gone, or keeps no worker there any more.",
    needed={"workers": _NAMES},
    known={"timeout": SECONDS},
    answer=Mapped(ADDRESS, TEXT, MAX_NAMED),
    waits=True,
)

REQUESTS = (RETIRE_WORKERS, WORKERS_TO_CLOSE, RESTART, RESTART_WORKERS)
