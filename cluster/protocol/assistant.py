"""What the scheduler and its assistant say to each other, over a socket that only these two have."""

from __future__ import annotations

from holdfast.cluster.protocol.errands import ERRAND, ERRAND_DONE, ERRAND_STORED
from holdfast.cluster.protocol.kinds import KEY, KEYS, OPTIONS, RECORD, TEXT, TOPICS
from holdfast.cluster.protocol.limits import MAX_INTEGER, MAX_NAMED
from holdfast.cluster.protocol.message import Message, Vocabulary
from holdfast.cluster.protocol.shapes import Entry, Integer, Listed, Maybe, Number, OneOf

LISTEN = Message(
    "listen",
    "What the assistant is to be told of from now on: the hooks that plugins have.",
    hooks=Listed(TEXT, MAX_NAMED),
)
EVENT_LOGGED = Message("event", "A function or a plugin adds an event to these topics.", topics=TOPICS, record=RECORD)
#: Where a task comes among others that could run: below zero before others, of each of the two.
TASK_PRIORITY = Entry(
    priority=Number(float("-inf"), float("inf")),
    number=Integer(-MAX_INTEGER, MAX_INTEGER),
)
#: Tasks, with those that each reads.
SUBMITTED = Listed(Entry(key=KEY, dependencies=KEYS, priority=Maybe(TASK_PRIORITY)))
ENDED = Message("ended", "All has been taken down, and the assistant ends.")

FROM_ASSISTANT = Vocabulary("the assistant", "the scheduler", ERRAND_DONE, ERRAND_STORED, LISTEN, EVENT_LOGGED, ENDED)

TELL = Message(
    "tell",
    "What has happened, as the hooks of plugins are told it: tasks were submitted, and have moved; workers and clients "
    "have come or gone; all workers are restarted; events were logged. So many changes before were left out, because "
    "the assistant is too slow.",
    missed=Integer(),
    changes=Listed(
        OneOf(
            "what has happened",
            Entry(at=Number(), what=TEXT, key=KEY, start=Maybe(TEXT), finish=TEXT),
            Entry(at=Number(), what=TEXT, client=TEXT, wants=Maybe(KEYS), tasks=SUBMITTED, options=OPTIONS),
            Entry(at=Number(), what=TEXT, topics=TOPICS, record=RECORD),
            Entry(at=Number(), what=TEXT, peer=TEXT),
            Entry(at=Number(), what=TEXT),
        )
    ),
)

TO_ASSISTANT = Vocabulary("the scheduler", "the assistant", ERRAND, TELL)
