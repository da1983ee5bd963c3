"""Room for objects to come: what clients ask for, have, write to, and give back or seal.

A request for bytes waits for room in one queue (``create_queue.py``), until its deadline. What is granted is a
*reservation*, for one object, or a *slab*, for small objects. A client is believed only about what is its own: a seal
has to lie in its slab, or be its reservation.
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast.objectstore.core.client_state import ClientState, Reservation, SlabLease
from holdfast.objectstore.core.compaction import Compaction
from holdfast.objectstore.core.create_queue import CreateQueue, CreateWait
from holdfast.objectstore.core.deadlines import Deadlines
from holdfast.objectstore.core.effects import Answer, Effect
from holdfast.objectstore.core.object_index import ObjectIndex
from holdfast.objectstore.errors import StoreProtocolError
from holdfast.objectstore.memory.allocator import SMALL_NBYTES, Allocator
from holdfast.objectstore.memory.free_extents import ALIGNMENT, LARGE_NBYTES, footprint
from holdfast.objectstore.shared.ids import ObjectID
from holdfast.objectstore.shared.protocol import SealItem, Status

LEASE_NBYTES_MAX = 4 << 20
LEASES_PER_CLIENT = 4
RESERVATIONS_PER_CLIENT = 4096
WAITS_PER_CLIENT = 4096


class Room:
    """The bytes that clients have to write, and the requests for more.

    Parameters
    ----------
    clients : dict of int and ClientState
        All clients.
    allocator : Allocator
        What is free.
    index : ObjectIndex
        Where objects are listed as soon as there are bytes for them.
    compaction : Compaction
        Makes a hole where there is none.
    deadlines : Deadlines
        Until when requests wait.
    free : callable
        Called with ``(offset, nbytes)`` for what is given back.
    explain : callable
        Why there is no room for so many bytes, after so many seconds.
    do : callable
        Takes what is to be done.

    Attributes
    ----------
    queue : CreateQueue
        The requests that wait.
    changed : bool
        Whether a request that waits may be granted now: bytes are free, or may go, that weren't and didn't. Then the
        queue is to be served.
    """

    def __init__(
        self,
        clients: dict[int, ClientState],
        allocator: Allocator,
        index: ObjectIndex,
        compaction: Compaction,
        deadlines: Deadlines,
        *,
        free: Callable[[int, int], None],
        explain: Callable[[int, float], str],
        do: Callable[[Effect], None],
    ) -> None:
        self.queue = CreateQueue(self._grant)
        self.changed = False
        self._clients = clients
        self._allocator = allocator
        self._index = index
        self._compaction = compaction
        self._deadlines = deadlines
        self._free = free
        self._explain = explain
        self._do = do

    def create(self, client: int, request: int, nbytes: int, timeout: float, object_id: ObjectID | None = None) -> None:
        """Room for one object of ``nbytes``. Replied with its offset, or FULL after ``timeout`` seconds.

        With ``object_id``, it's for that object, which is in the index from now on: open.
        """
        if nbytes < 1 or len(self._clients[client].reserved) >= RESERVATIONS_PER_CLIENT:
            raise StoreProtocolError(f"a reservation of {nbytes} bytes, or one too many")
        self._ask(CreateWait(client, request, nbytes, nbytes, object_id), timeout)

    def lease(self, client: int, request: int, nbytes: int, want_nbytes: int, timeout: float, done: list[int]) -> None:
        """A slab of about ``want_nbytes`` for small objects, of at least ``nbytes``.

        Replied with its offset and size. ``done`` are the ends of leases whose rest is given back.
        """
        state = self._clients[client]
        for end in done:
            lease = next((lease for lease in state.leases if lease.end == end), None)
            if lease is None:
                raise StoreProtocolError(f"no lease of it ends at {end}")
            state.leases.remove(lease)
            self._release_rest(lease)
        if not 1 <= nbytes <= min(want_nbytes, LARGE_NBYTES) or len(state.leases) >= LEASES_PER_CLIENT:
            raise StoreProtocolError(f"a lease of {nbytes} to {want_nbytes} bytes, or one too many")
        share = self._allocator.capacity // (16 * len(self._clients))
        want_nbytes = max(nbytes, min(want_nbytes, LEASE_NBYTES_MAX, share))
        self._ask(CreateWait(client, request, nbytes, want_nbytes, lease=True), timeout)

    def abort(self, client: int, offset: int) -> None:
        """A reservation is given back unsealed."""
        reservation = self._clients[client].reserved.pop(offset, None)
        if reservation is None:
            raise StoreProtocolError(f"nothing is reserved for it at {offset}")
        self.give_up(offset, reservation)

    def cancel(self, client: int, request: int) -> bool:
        """A request for room isn't wanted any more. False if it was answered already."""
        for wait in self.queue.of_client(client):
            if wait.request == request:
                self.leave(wait)
                return True
        return False

    def timed_out(self, wait: CreateWait, waited_seconds: float) -> None:
        """The request has waited until its deadline."""
        self.leave(wait)
        self._refuse(wait, waited_seconds)

    def release(self, client: ClientState) -> None:
        """Gives back all that a client had to write."""
        for offset, reservation in client.reserved.items():
            self.give_up(offset, reservation)
        for lease in client.leases:
            self._release_rest(lease)

    def _ask(self, wait: CreateWait, timeout: float) -> None:
        if footprint(wait.nbytes) > self._allocator.capacity:
            self._refuse(wait, 0)
        elif not self.queue.offer(wait):
            if timeout <= 0:
                self.leave(wait)
                self._refuse(wait, 0)
            elif len(self.queue.of_client(wait.client)) > WAITS_PER_CLIENT:
                raise StoreProtocolError("it waits for room too many times over")
            else:
                self._deadlines.add(wait, timeout)

    def leave(self, wait: CreateWait) -> None:
        """The request waits no longer."""
        self.queue.remove(wait)
        self.changed = True  # the next in line may be smaller

    def _refuse(self, wait: CreateWait, waited_seconds: float) -> None:
        self._do(Answer(wait.client, wait.request, Status.FULL, (self._explain(wait.nbytes, waited_seconds),)))

    def _grant(self, wait: CreateWait) -> bool:
        state = self._clients[wait.client]
        placed = self._place(wait.want_nbytes, wait.nbytes, small=wait.lease or wait.nbytes <= SMALL_NBYTES)
        if placed is None:
            return False
        offset, nbytes = placed
        if wait.lease:
            nbytes = footprint(nbytes)
            state.leases.append(SlabLease(offset, offset + nbytes))
        else:
            slot = self._index.add(wait.object_id, offset, nbytes, is_open=True) if wait.object_id else 0
            state.reserved[offset] = Reservation(nbytes, wait.object_id, slot)
        self._do(Answer(wait.client, wait.request, Status.OK, (offset, nbytes)))
        return True

    def _place(self, want_nbytes: int, nbytes: int, *, small: bool) -> tuple[int, int] | None:
        # The one place where the store finds out that there is no room: what could be given up for
        # the newcomer is decided here, before the request has to wait.
        offset = self._allocator.allocate(want_nbytes, small=small)
        if offset is not None:
            return offset, want_nbytes
        if nbytes < want_nbytes:
            offset = self._allocator.allocate(nbytes, small=small)
            if offset is not None:
                return offset, nbytes
        if self._compaction.make_room(nbytes):
            offset = self._allocator.allocate(nbytes, small=small)
            if offset is None:
                offset = self._allocator.allocate_apart(nbytes)
        return None if offset is None else (offset, nbytes)

    def give_up(self, offset: int, reservation: Reservation) -> None:
        """Bytes that aren't reserved any more are free."""
        if reservation.slot:
            self._index.remove(reservation.slot)
        self._free(offset, footprint(reservation.nbytes))

    def _release_rest(self, lease: SlabLease) -> None:
        if lease.cursor < lease.end:
            self._free(lease.cursor, lease.end - lease.cursor)

    def take_to_seal(self, client: int, item: SealItem) -> Reservation:
        """The bytes that are sealed aren't the client's any more.

        Raises
        ------
        StoreProtocolError
            If they aren't its own now, or were reserved for another object.
        """
        state = self._clients[client]
        reservation = state.reserved.get(item.offset)
        if reservation is None:
            self._seal_in_lease(state, item.offset, item.nbytes)
            return Reservation(item.nbytes, item.object_id, 0)
        if reservation.nbytes != item.nbytes:
            raise StoreProtocolError(f"{reservation.nbytes} bytes were reserved for an object of {item.nbytes}")
        if reservation.object_id not in (None, item.object_id):
            raise StoreProtocolError(f"the bytes at {item.offset} were reserved for another object")
        del state.reserved[item.offset]
        return reservation

    def _seal_in_lease(self, state: ClientState, offset: int, nbytes: int) -> None:
        if offset % ALIGNMENT == 0 and 1 <= nbytes < LARGE_NBYTES:
            end = offset + footprint(nbytes)
            for lease in state.leases:
                if lease.cursor <= offset and end <= lease.end:
                    if lease.cursor < offset:
                        self._free(lease.cursor, offset - lease.cursor)
                    lease.cursor = end
                    return
        raise StoreProtocolError(f"{nbytes} bytes at {offset} are not its own to seal")
