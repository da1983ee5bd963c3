"""What this client holds: one `KeyState` for each key, shared by all its futures.

Theory of operation. A key is *held* from the first future of it until the last one is gone; the scheduler hears of both
ends only. User threads add holders, and the garbage collector takes them away, in any thread, at any allocation,
maybe while that very thread is inside `KeyTable.lock`. So `KeyTable.drop` takes no lock: it leaves the state in a
queue, and the loop settles the queue before it sends (`KeyTable.settle`). Everything else that changes states or counts
happens under the lock, and so does the posting of the messages that tell the scheduler: what is posted for a key is in
the order of what happened to it.

States: ``pending`` → ``finished`` or ``error``; back to ``pending`` when every copy of a result is gone and it is
being made again; ``cancelled`` and ``lost`` are final, and a key in one of these is made anew when it is
submitted again.

A key can be released and held again at once, by a call of its own, while what the scheduler says of its first life is
still on its way here. So what is posted is numbered by *turns*, the number in front of what belongs to each; a report
carries the number of the last turn that the scheduler had begun to read, and a state takes no report from before the
turn that made it. A release ends its turn, so none has both the release of a key and its next hold: however much of a
turn the scheduler has read, what it says is of the key's life then.

A key that a user chose can mean one thing now and another when it is held anew. A call that begins something under such
a key settles first (`KeyTable.settle_all`), so that it isn't taken for held by futures that are gone. So does a call
with options, such as the workers that may run it. And what is made of the result of a chosen key may not be named by
the key alone: `KeyTable.meaning_of` says what has to be added.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Any

from holdfast.client.core.completions import Completions
from holdfast.client.core.key_state import CANCELLED, ERROR, FINAL, FINISHED, LOST, PENDING, Hears, KeyState, Waiter
from holdfast.client.packing.keys import is_made_of_content, random_token
from holdfast.client.stores.location import Location
from holdfast.cluster import protocol
from holdfast.cluster.errors import CancelledError

logger = logging.getLogger(__name__)

_TURN = protocol.client.TURN_BEGINS.operation
_RELEASE = protocol.client.RELEASE.operation
#: Keys that are released at once: a million dropped together must not keep the lock, and the loop, for a second.
MAX_SETTLED = 10_000
#: Keys that a warning names.
MAX_NAMED = 5


class Beginning(list[KeyState]):
    """New states that the scheduler has not been told of. Use it as a context: without a commit they are forgotten."""

    #: The scheduler is about to be told: the states stay. A method in C, so that an interrupt comes before or after it.
    commit = list.clear

    def __init__(self, table: KeyTable) -> None:
        super().__init__()
        self._table = table

    def __enter__(self) -> Beginning:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for state in self if exc_info[0] is not None else ():
            if self._table.states.get(state.key) is state:
                del self._table.states[state.key]
            state.reason = CancelledError(f"the call that was to make {state.key!r} was cut short")
            state.status = CANCELLED


class KeyTable:
    """The states of the keys that one client holds.

    Parameters
    ----------
    outbox:
        Takes messages for the scheduler at its end.
    flush_soon:
        Makes the loop call `settle` and send what is in the outbox, soon; from any thread, also inside the garbage
        collector.
    read_while, wake_reader:
        `Transport.read_while` and `Transport.wake_reader`: a thread that waits reads what the scheduler says.

    Attributes
    ----------
    lingers : bool
        The loop calls `settle` in a moment without being woken. Set by the session.
    heard : int
        The last turn that the scheduler is known to have taken in.
    """

    def __init__(
        self,
        outbox: list[tuple[Any, ...]],
        flush_soon: Callable[[], None],
        read_while: Callable[[Callable[[], bool], float | None], bool],
        wake_reader: Callable[[], None],
    ) -> None:
        # Reentrant: the garbage collector may run a user's code inside.
        self.lock = threading.RLock()
        self.states: dict[Any, KeyState] = {}
        self.lingers = False
        self.heard = 0
        self._dropped: deque[KeyState] = deque()
        self._released: list[Any] = []  # and not posted yet
        self._turn = 0
        self._outbox = outbox
        self._flush_soon = flush_soon
        self._read_while = read_while
        self._wake_reader = wake_reader

    # -- holding

    def state_of(self, key: Any) -> tuple[KeyState, bool]:
        """The state of a key, and whether it is new, so that the scheduler must be told. The caller has the lock."""
        state = self.states.get(key)
        # One without holders was begun by a call that was interrupted.
        new = state is None or state.status in FINAL or not state.holders
        if new:
            if self._released:  # by one that was interrupted: what is posted for the key now comes after that
                self._post_released()
            state = self.states[key] = KeyState(key, self._turn + 1)
        elif state is not None and state.expected:
            state.expected = False  # what is submitted now is what it means, unless others have submitted something
            new = state.status == PENDING
        assert state is not None
        return state, new

    def retry(self, states: Iterable[KeyState]) -> None:
        """Those of the states that have failed are computed again: the scheduler says in any case what they become."""
        with self.lock:
            failed = [state for state in states if state.status == ERROR and self.states.get(state.key) is state]
            for state in failed:
                state.failure = None
                state.status = PENDING
            if failed:
                self._outbox += (protocol.client.RETRY([state.key for state in failed]),)
                self._flush_soon()

    def held(self) -> list[Any]:
        """The keys that the scheduler is to hold for this client, by what was posted. The caller has the lock."""
        return [key for key, state in self.states.items() if state.status not in FINAL]

    def beginning(self) -> Beginning:
        """Within it, and the lock, keys are begun, which are forgotten again if it ends with an exception."""
        return Beginning(self)

    def drop(self, state: KeyState) -> None:
        """Take a holder away, soon. Takes no lock; may be called from a finalizer."""
        self._dropped.append(state)
        # Small results that are not wanted any more may stay for a moment; all else is to go, or to stop, at once.
        location = state.location
        if not self.lingers or location is None or location.inline is None:
            self._flush_soon()

    def release(self, state: KeyState) -> None:
        """Take a holder away that a user lets go of: if it was the last one, what waits for the state is over."""
        self.drop(state)
        if state.waiters is not None or state.callbacks is not None:
            self.settle_all()
            with self.lock:
                if not state.holders:
                    self._end(state, CANCELLED, CancelledError("it was released"))

    @property
    def has_dropped(self) -> bool:
        """Whether there is anything to `settle`."""
        return bool(self._dropped or self._released)

    def settle(self) -> bool:
        """Release keys that lost their last holder, up to `MAX_SETTLED` of them. Whether there are more."""
        dropped = self._dropped
        if not dropped and not self._released:
            return False
        with self.lock:
            states = self.states
            released = self._released
            limit = MAX_SETTLED
            while dropped and limit:
                limit -= 1
                # No call from here to the end of the loop, so that an interrupt comes before or after all of it.
                state = dropped[0]
                if state.holders == 1 and state.key in states and states[state.key] is state:
                    del states[state.key]
                    if state.status not in FINAL:
                        released += (state.key,)
                state.holders -= 1
                del dropped[0]
            self._post_released()
        return bool(dropped)

    def settle_all(self) -> None:
        """Release every key that has lost its last holder by now, and what was kept for the sake of these.

        A call by a signal handler or a finalizer, inside of what changes states, leaves them as they are.
        """
        if not self.lock._is_owned():  # type: ignore[attr-defined]
            while self.has_dropped:
                self.settle()

    def _post_released(self) -> None:
        """Post what `settle` has released, in a turn that ends with it. The caller has the lock."""
        outbox = self._outbox
        if self._released:
            # No call in here, as there, not even that of a message's definition. Nothing here wakes the loop: the drop
            # of the state has done that.
            outbox += ((_RELEASE, self._released), (_TURN, self._turn + 2))
            self._turn += 1
            self._released = []

    def meaning_of(self, key: Any) -> bytes:
        """What stands, beside a key that is held, for the result that it has: nothing if the key says it all."""
        state = self.states.get(key)
        if state is not None and state.call is not None:
            return state.call
        if is_made_of_content(key):
            return b""
        return self.token_of(state).encode() if state is not None else random_token().encode()

    def begin_turn(self, posted: list[tuple[Any, ...]]) -> int:
        """What is posted from here on belongs to the next turn, if anything was posted in this one. Its number."""
        with self.lock:
            if posted and posted[-1][0] != _TURN:
                # In this order, and without a call: a state whose turn is never announced would hear nothing.
                posted += ((_TURN, self._turn + 2),)
                self._turn += 1
            return self._turn

    def first_turn(self) -> tuple[Any, ...]:
        """What is to be posted in front of everything else."""
        return protocol.client.TURN_BEGINS(self._turn + 1)

    def token_of(self, state: KeyState) -> str:
        """What tells this life of the key from all others."""
        with self.lock:
            if state.token is None:
                state.token = random_token()
            return state.token

    # -- what the scheduler says

    @property
    def ended_turn(self) -> int:
        """The last turn that nothing more is posted in."""
        return self._turn

    def _current(self, key: Any, turn: int) -> KeyState | None:
        state = self.states.get(key)
        return None if state is None or state.status in FINAL or state.since > turn else state

    def calls_back(self, entries: Iterable[tuple[Any, ...]]) -> bool:
        """Whether something is to be called when these results are there."""
        states = self.states
        for key, _, _, _, _ in entries:  # a generator would cost as much as all the rest
            state = states.get(key)
            if state is not None and state.callbacks:
                return True
        return False

    def memory(self, entries: Iterable[tuple[Any, ...]], turn: int) -> None:
        """These results can be read. An interrupt may cut it short; it is called again then."""
        self.heard = turn
        with self.lock:
            for key, object_id, nbytes, inline, nodes in entries:
                state = self._current(key, turn)
                if state is None:
                    continue
                if type(inline) is memoryview:
                    inline = bytes(inline)  # the view would keep the whole frame
                state.location = Location(object_id, nbytes, inline, nodes)
                state.failure = None
                state.status = FINISHED
                self._ready(state)

    def erred(self, entries: Iterable[tuple[Any, ...]], turn: int) -> None:
        """These tasks failed."""
        self.heard = turn
        with self.lock:
            for key, raised, text in entries:
                state = self._current(key, turn)
                if state is None:
                    continue
                if type(raised) is tuple:
                    object_id, nbytes, nodes = raised
                    state.failure = (Location(object_id, nbytes, None, nodes), text)
                else:
                    state.failure = (raised if type(raised) is str else bytes(raised), text)
                state.location = None
                state.status = ERROR
                self._ready(state)

    def pending(self, keys: Iterable[Any], turn: int) -> None:
        """The copies of these are gone; they are being made again."""
        with self.lock:
            for key in keys:
                state = self._current(key, turn)
                if state is not None:
                    state.location = state.failure = None
                    state.status = PENDING

    def cancelled(self, keys: Iterable[Any], reason: Exception, turn: int | None = None) -> None:
        """These are gone. Without a turn: because this client says so."""
        with self.lock:
            for key in keys:
                state = self._current(key, self._turn + 1 if turn is None else turn)
                if state is not None:
                    self._end(state, CANCELLED, reason)

    def kept(self, keys: Iterable[Any]) -> None:
        """What this client has specified under these keys is not what they mean: others hold them."""
        chosen = [key for key in keys if not is_made_of_content(key)]
        with self.lock:
            for key in chosen:
                state = self.states.get(key)
                if state is not None:
                    state.call = None
        if chosen:
            names = ", ".join([f"{key!r:.100}" for key in chosen[:MAX_NAMED]])
            more = f" and {len(chosen) - MAX_NAMED:,} more" if len(chosen) > MAX_NAMED else ""
            logger.warning(
                "in use by others: %s%s. Another client or a published dataset holds what was submitted under this key "
                "before, so it stands for the result of that, and what this client submitted is not computed. Choose "
                "another key, or wait until that is released",
                names,
                more,
            )

    def scattered(self, state: KeyState, location: Location) -> None:
        """This client has stored the object itself."""
        with self.lock:
            state.location = location
            state.status = FINISHED
            self._ready(state)

    def given(self, key: Any, location: Location) -> KeyState:
        """The scheduler has given this client a key to hold, with a result. The state, which the caller holds."""
        with self.lock:
            state, new = self.state_of(key)
            if new:  # the scheduler has made the key, so nothing is under way that could be of an earlier life of it
                state.since = self._turn
            state.holders += 1
            self.scattered(state, location)
        return state

    def wanted(self, key: Any) -> KeyState:
        """The scheduler has given this client a key to hold: the state, which the caller holds."""
        with self.lock:
            state, new = self.state_of(key)
            state.holders += 1
            if new:  # it is asked for, so that what the scheduler says of it counts from this turn on
                self._outbox += (protocol.client.WANT([key]),)
                self._flush_soon()
        return state

    def missing(self, state: KeyState, location: Location) -> None:
        """A result could not be read anywhere: tell the scheduler, which says in any case what is to be done."""
        with self.lock:
            if state.location is location and state.status == FINISHED:
                state.location = None
                state.status = PENDING
                node = location.nodes[0] if location.nodes else ""
                message = protocol.client.RESULTS_MISSING([(state.key, location.object_id, node)])
                self._outbox += (message,)
                self._flush_soon()

    def end_all(self, status: str, reason: Exception) -> None:
        """Nothing more will be heard. What is finished stays readable for as long as its bytes are there."""
        with self.lock:
            for state in list(self.states.values()):
                if state.status == PENDING:
                    self._end(state, status, reason)

    def leave_to_parent(self, reason: Exception) -> None:
        """In a forked child: every key is lost to it. Takes no lock; the threads that wait for keys aren't here."""
        self.lock = threading.RLock()
        for state in self.states.values():
            state.waiters = state.callbacks = state.location = state.failure = None
            state.reason = reason
            state.status = LOST

    def _end(self, state: KeyState, status: str, reason: Exception) -> None:
        if state.status in FINAL:
            return
        state.location = state.failure = None
        state.reason = reason
        state.status = status
        self._ready(state)

    def _ready(self, state: KeyState) -> None:
        for waiter in state.waiters or ():
            if waiter.notify(state):
                self._wake_reader()
        state.waiters = None
        callbacks, state.callbacks = state.callbacks, None
        for callback in callbacks or ():
            callback()

    # -- waiting

    def when_ready(self, state: KeyState, callback: Callable[[], None]) -> None:
        """Call once it is not pending any more, at once if it is so now. Called under the lock, it must not wait."""
        with self.lock:
            if state.status == PENDING:
                state.callbacks = [*(state.callbacks or ()), callback]
                return
        callback()

    def wait(
        self, states: Collection[KeyState], timeout: float | None, *, first: bool = False, on_error: bool = False
    ) -> bool:
        """Block until the wait is over; False if ``timeout`` seconds passed before.

        Parameters
        ----------
        states:
            Distinct.
        first:
            One that is ready ends the wait; otherwise all of them.
        on_error:
            One that is ready but did not finish ends it too.
        """
        waiter = self.begin_wait(states, first=first, on_error=on_error)
        if waiter is None:
            return True
        over = False
        try:
            deadline = None if timeout is None else time.monotonic() + timeout
            over = self._read_while(waiter.gate.locked, timeout) or waiter.gate.acquire(
                timeout=-1 if deadline is None else max(0.0, min(deadline - time.monotonic(), threading.TIMEOUT_MAX))
            )
        finally:
            if not over or waiter.pending:
                self.end_wait(waiter, states)
        return over

    def is_over(self, states: Collection[KeyState], *, first: bool, on_error: bool) -> bool:
        """Whether a wait, as for `wait`, is over."""
        return not _waited_for(states, first, on_error)

    def begin_wait(
        self,
        states: Collection[KeyState],
        *,
        first: bool,
        on_error: bool,
        wake: Callable[[], None] | None = None,
    ) -> Waiter | None:
        """Begin a wait, as for `wait`; None if it is over already. ``wake`` is called when it is."""
        with self.lock:
            pending = _waited_for(states, first, on_error)
            if not pending:
                return None
            waiter = Waiter(pending, first, on_error, wake)
            for state in pending:
                if state.waiters is None:
                    state.waiters = [waiter]
                else:
                    state.waiters.append(waiter)
        return waiter

    def hear(self, completions: Completions, states: Iterable[KeyState]) -> None:
        """Have it told of each of the states when that is ready, or now."""
        with self.lock:
            for state in states:
                if state.status != PENDING:
                    completions.notify(state)
                elif state.waiters is None:
                    state.waiters = [completions]
                else:
                    state.waiters.append(completions)

    def wait_for_one(self, completions: Completions, timeout: float | None) -> bool:
        """Block until one of the states is ready that it hears of; False if ``timeout`` seconds passed before."""
        gate = threading.Lock()
        gate.acquire()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # another one has become ready before
                gate.release()
            self._wake_reader()

        completions.wakes.append(wake)
        try:
            if completions.ready:
                return True
            deadline = None if timeout is None else time.monotonic() + timeout
            return self._read_while(gate.locked, timeout) or gate.acquire(
                timeout=-1 if deadline is None else max(0.0, min(deadline - time.monotonic(), threading.TIMEOUT_MAX))
            )
        finally:
            completions.wakes.remove(wake)

    def end_wait(self, waiter: Hears, states: Iterable[KeyState]) -> None:
        """Wait no longer for those of the states that are pending still."""
        with self.lock:
            for state in states:
                if state.waiters is not None and waiter in state.waiters:
                    state.waiters.remove(waiter)


def _waited_for(states: Collection[KeyState], first: bool, on_error: bool) -> list[KeyState]:
    """The states that a wait, as for `KeyTable.wait`, is for: none when it is over."""
    pending = [state for state in states if state.status == PENDING]
    if first and len(pending) < len(states):
        return []
    if on_error and any(state.status not in (PENDING, FINISHED) for state in states):
        return []
    return pending
