"""How requests were answered that have changed something, for clients that ask the next scheduler again.

A client that does not hear the answer of a request poses it to the next scheduler, by the same number. That one must
not do it twice. So each reply of an event that has decided something is noted with what it has decided, in one batch. A
reply is forgotten when its client has said that it was heard, and at the latest when there are `KEPT` later ones.

An answer that has decided nothing is noted nowhere: that there was no item, or that a lock was not free. If its client
has heard it, the request must not be done at all any more, since it may come to something else now, of which the client
would not know. So a scheduler does nothing about a request that was sent to an earlier one, whether that has heard it
or not. A client that comes back says what it has (`rejoined`), and then it poses the requests again that it still waits
for. What it said before that, and has no answer (`Request.quiet`), counts.

======================================  ============================================  ==============================
a request, when its scheduler dies      its client                                    the next scheduler
======================================  ============================================  ==============================
was sent                                poses it again                                begins with it
waits                                   poses it again                                has it wait
was answered, which has decided         poses it again                                gives the noted reply, or finds
something, and that was not heard                                                     the same (`Replies.leave_out`)
was answered, which has decided         poses it again                                answers it anew
nothing, and that was not heard
was answered, and that was heard        does not pose it again                        does nothing
was given up by its client, in          does not pose it again, and says by the       gives back what was granted or
whatever state                          number of the lease that it gives it up       handed out as that lease
is answered long after it has begun     poses it again                                finds that it has begun
                                                                                      (`Replies.begin`)
======================================  ============================================  ==============================
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from holdfast.cluster.journal import records
from holdfast.cluster.scheduler.tasks.decisions import Decisions
from holdfast.cluster.scheduler.tasks.instructions import Instruction, Reply

#: So many replies of a client are known at most.
KEPT = 10_000

#: Whether it is no error, and the value.
Given: TypeAlias = tuple[bool, Any]
#: A request that has begun: in the place of whether it is no error there is nothing, and then whom it is about.
Begun: TypeAlias = tuple[None, Sequence[str]]


class Replies:
    """The noted replies.

    Parameters
    ----------
    decisions
        Where they are noted.
    """

    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions
        self._of: dict[str, OrderedDict[int, Given | Begun]] = {}  # by client
        self._awaited: set[str] = set()  # clients that have not rejoined; only asked for membership
        self._left_out: set[tuple[str, int]] = set()  # in this event; only asked for membership

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def get(self, client: str, request: int) -> Given | None:
        """How a request was answered; None: it was not, as far as is known."""
        of_client = self._of.get(client)
        known = None if of_client is None else of_client.get(request)
        return None if known is None or known[0] is None else (known[0], known[1])

    def is_awaited(self, client: str) -> bool:
        """Whether a client of an earlier scheduler has not rejoined: what it asks here it has asked that one."""
        return client in self._awaited

    def await_client(self, client: str) -> None:
        """A client of an earlier scheduler is to rejoin."""
        self._awaited.add(client)

    def rejoined(self, client: str) -> None:
        """A client has sent again all that no scheduler had heard, and poses again what it waits for."""
        self._awaited.discard(client)

    def begin(self, client: str, request: int, about: Sequence[str] = ()) -> None:
        """A request has begun, and is answered later. ``about`` are those that have to do with it."""
        if self._decisions.is_kept:
            self._put(client, request, (None, about))

    def has_begun(self, client: str, request: int) -> bool:
        """Whether an earlier scheduler has begun with a request."""
        return request in self._of.get(client, ())

    def begun_about(self, client: str, request: int) -> Sequence[str]:
        """Those that have to do with a request with which an earlier scheduler has begun."""
        of_client = self._of.get(client)
        known = None if of_client is None else of_client.get(request)
        return () if known is None or known[0] is not None else known[1]

    def leave_out(self, client: str, request: int) -> None:
        """The reply of a request, in this event, is not noted: another scheduler would find the answer once more."""
        if self._decisions.is_kept:
            self._left_out.add((client, request))

    def note(self, instructions: Iterable[Instruction]) -> None:
        """An event has decided something, and these are all that follow from it."""
        for instruction in instructions:
            if type(instruction) is Reply:
                client, request, ok, value = instruction
                if (client, request) not in self._left_out:
                    self._put(client, request, (ok, value))
        self._left_out.clear()

    def _put(self, client: str, request: int, given: Given | Begun) -> None:
        of_client = self._of.setdefault(client, OrderedDict())
        of_client[request] = given
        self._decisions.note(records.put_for("replies", client, request, given))
        if len(of_client) > KEPT:
            self.heard(client, [next(iter(of_client))])

    def heard(self, client: str, requests: Iterable[int]) -> None:
        """A client knows these replies, and poses none of the requests again."""
        of_client: dict[int, Given | Begun] = self._of.get(client, OrderedDict())
        for request in requests:
            if request in of_client:
                del of_client[request]
                self._decisions.note(records.remove_for("replies", client, request))

    def client_left(self, client: str) -> None:
        """A client is gone, and its entries in the journal with it."""
        self._of.pop(client, None)
        self._awaited.discard(client)

    def recover(self, client: str, entries: Mapping[int, Given | Begun]) -> None:
        """Take up what was noted of a client."""
        self.await_client(client)
        if entries:
            self._of[client] = OrderedDict(entries)
