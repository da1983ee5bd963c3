"""How requests were answered that have changed something, for clients that ask the next scheduler again.

A client that does not hear the answer of a request poses it to the next scheduler, by the same number. That one must
not do it twice. So each reply of an event that has decided something is noted with what it has decided, in one batch. A
reply is forgotten when its client has said that it was heard, and at the latest when there are `KEPT` later ones.

Some requests need no noted reply, since what they have decided says the same (`Replies.leave_out`). Others are answered
long after they have begun: their parts note that they have (`Replies.begin`), and look before they begin (`has_begun`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from holdfast.cluster.journal import records
from holdfast.cluster.scheduler.tasks.decisions import Decisions
from holdfast.cluster.scheduler.tasks.instructions import Instruction, Reply

#: So many replies of a client are known at most.
KEPT = 10_000

#: Whether it is no error, and the value.
Given: TypeAlias = tuple[bool, Any]


class Replies:
    """The noted replies.

    Parameters
    ----------
    decisions
        Where they are noted.
    """

    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions
        self._of: dict[str, OrderedDict[int, Given | None]] = {}  # by client; None: it has begun
        #: Of clients that have not rejoined, the requests that they have sent again, since no scheduler had heard them;
        #: and of those that have, what of that they may pose once more.
        self._sent_again: dict[str, set[int]] = {}  # only asked for membership, as are those
        self._posed: dict[str, set[int]] = {}
        self._left_out: set[tuple[str, int]] = set()  # in this event; only asked for membership

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def get(self, client: str, request: int) -> Given | None:
        """How a request was answered; None: it was not, as far as is known."""
        of_client = self._of.get(client)
        return None if of_client is None else of_client.get(request)

    def is_posed_twice(self, client: str, request: int) -> bool:
        """Whether a request is posed that was sent again before, since its frame had not been heard."""
        sent_again = self._sent_again.get(client)
        if sent_again is not None:
            is_known = request in sent_again
            sent_again.add(request)
            return is_known
        return request in self._posed.get(client, ())

    def rejoined(self, client: str) -> None:
        """A client has sent again all that no scheduler had heard, and poses again what has no answer."""
        if sent_again := self._sent_again.pop(client, None):
            self._posed[client] = sent_again

    def begin(self, client: str, request: int) -> None:
        """A request has begun, and is answered later."""
        if self._decisions.is_kept:
            self._put(client, request, None)

    def has_begun(self, client: str, request: int) -> bool:
        """Whether an earlier scheduler has begun with a request."""
        return request in self._of.get(client, ())

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

    def _put(self, client: str, request: int, given: Given | None) -> None:
        of_client = self._of.setdefault(client, OrderedDict())
        of_client[request] = given
        self._decisions.note(records.put_for("replies", client, request, given))
        if len(of_client) > KEPT:
            self.heard(client, [next(iter(of_client))])

    def heard(self, client: str, requests: Iterable[int]) -> None:
        """A client knows these replies, and poses none of the requests again."""
        of_client: dict[int, Given | None] = self._of.get(client, OrderedDict())
        for request in requests:
            if request in of_client:
                del of_client[request]
                self._decisions.note(records.remove_for("replies", client, request))

    def client_left(self, client: str) -> None:
        """A client is gone, and its entries in the journal with it."""
        for table in (self._of, self._sent_again, self._posed):
            table.pop(client, None)

    def recover(self, client: str, entries: Mapping[int, Given | None]) -> None:
        """Take up what was noted of a client."""
        self._sent_again[client] = set()
        if entries:
            self._of[client] = OrderedDict(entries)
