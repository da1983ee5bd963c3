"""What clients have others do: see `cluster/protocol/errands.py`."""

from __future__ import annotations

from holdfast.cluster.protocol.kinds import ADDRESS, TEXT
from holdfast.cluster.protocol.limits import MAX_NAMED
from holdfast.cluster.protocol.message import Request
from holdfast.cluster.protocol.shapes import Anything, Fields, Listed, Mapped, Maybe, Number

ERRAND = Request(
    "errand",
    "Has workers or nodes do something: those of these names, of nil all that there are. What each of them gives comes "
    "as soon as it is there, by its address: its `value`, the `key` of an object that is the value and that the client "
    "holds from then on, or its `error`. Those that have not answered after `timeout` seconds have a TimeoutError.",
    needed={
        "operation": TEXT,
        "arguments": Mapped(TEXT, Anything("what the errand says"), MAX_NAMED),
    },
    known={"names": Maybe(Listed(TEXT, MAX_NAMED)), "timeout": Maybe(Number(0.0, 1e9))},
    answer=Mapped(
        ADDRESS,
        Fields(
            {},
            {
                "value": Anything("what the errand gives"),
                "key": TEXT,
                "error": Anything("the name and the text of an error"),
            },
        ),
        1 << 26,
    ),
    waits=True,
)

REQUESTS = (ERRAND,)
