"""What is missing is waited for: requests for objects that aren't there, and what brings those in.

A ``get`` of an object that isn't there waits for its seal, or for a fetch from elsewhere. One fetch runs at a time for
each object, however many ask; if it fails, another one tries what only the others know.

No client is told that an object isn't there before the server has read everything that was sent before the question.
One client may have sealed the object, and another may know so, while the seal is still in the first one's socket: so
the answer waits for one look at all sockets (``ReadOthers``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from holdfast.objectstore.core.client_state import ClientState
from holdfast.objectstore.core.effects import Answer, Effect, GetWait, ReadOthers, StartFetch
from holdfast.objectstore.errors import StoreProtocolError
from holdfast.objectstore.shared.ids import ObjectID
from holdfast.objectstore.shared.protocol import Status

WAITS_PER_CLIENT = 4096


class Lookups:
    """The requests for objects that aren't there.

    Parameters
    ----------
    clients : mapping of int and ClientState
        All clients.
    do : callable
        Takes what is to be done.

    Attributes
    ----------
    waiting : dict of ObjectID and list of GetWait
        Those for each object.
    fetches : dict of ObjectID and list of str
        The sources that are being tried for each object.
    """

    def __init__(self, clients: Mapping[int, ClientState], do: Callable[[Effect], None]) -> None:
        self.waiting: dict[ObjectID, list[GetWait]] = {}
        self.fetches: dict[ObjectID, list[str]] = {}
        self._clients = clients
        self._do = do

    def wait(self, get: GetWait) -> None:
        """The request waits from now on: until its object is sealed, or it's forgotten.

        Raises
        ------
        StoreProtocolError
            If its client waits for too many objects.
        """
        gets = self._clients[get.client].gets
        if len(gets) >= WAITS_PER_CLIENT:
            raise StoreProtocolError("it waits for too many objects")
        gets.add(get)
        self.waiting.setdefault(get.object_id, []).append(get)

    def forget(self, get: GetWait) -> None:
        """The request waits no longer."""
        get.done = True
        self._clients[get.client].gets.discard(get)
        waiting = self.waiting[get.object_id]
        waiting.remove(get)
        if not waiting:
            del self.waiting[get.object_id]

    def sealed(self, object_id: ObjectID) -> list[GetWait]:
        """The object has come: the requests that have waited for it. They wait no longer."""
        gets = self.waiting.pop(object_id)
        for get in gets:
            get.done = True
            self._clients[get.client].gets.discard(get)
        return gets

    def deleted(self, object_id: ObjectID) -> None:
        """The object won't come: the requests for it are answered so."""
        for get in list(self.waiting[object_id]):
            self._fail(get, f"object {object_id} was deleted")

    def ask_others(self, get: GetWait) -> None:
        """Nothing is known of the object: the request waits for what others have sent."""
        self._do(ReadOthers(get))

    def others_read(self, get: GetWait) -> None:
        """All that was sent before the request has been read: the object isn't there."""
        if not get.done:
            self._fail(get, f"object {get.object_id} is not in this store")

    def timed_out(self, get: GetWait, waited_seconds: float) -> None:
        """The request has waited until its deadline."""
        self._fail(get, f"object {get.object_id} is not in this store, {waited_seconds:g} s after it was asked for")

    def fetch(self, object_id: ObjectID, sources: list[str]) -> None:
        """Has the object brought in, if that isn't under way."""
        if object_id not in self.fetches:
            self.fetches[object_id] = sources
            self._do(StartFetch(object_id, sources))

    def fetch_done(self, object_id: ObjectID, text: str, status: Status, *, try_others: bool) -> None:
        """A fetch has ended. The requests that still wait for it fail, unless they know sources that weren't tried.

        Their sources are tried then, if ``try_others``, those of the first of them first.
        """
        tried = self.fetches.pop(object_id, [])
        for get in [get for get in self.waiting.get(object_id, ()) if get.sources]:
            get.sources = [source for source in get.sources if source not in tried] if try_others else []
            if get.sources:
                self.fetch(object_id, get.sources)
            else:
                self.forget(get)
                self._answer(get, status, text)

    def check(self, is_there: Callable[[ObjectID], bool]) -> None:
        """Asserts what must hold between any two events."""
        waits = [get for client in self._clients.values() for get in client.gets]
        assert {get for gets in self.waiting.values() for get in gets} == set(waits)
        assert not any(map(is_there, self.waiting))
        assert all(get.object_id in self.fetches for get in waits if get.sources)

    def _fail(self, get: GetWait, text: str) -> None:
        self.forget(get)
        if get.pins:
            self._answer(get, Status.NOT_FOUND, text)
        else:
            self._answer(get, Status.OK, False)

    def _answer(self, get: GetWait, status: Status, *payload: Any) -> None:
        self._do(Answer(get.client, get.request, status, payload))
