"""What clients ask the scheduler, and its answers.

Most requests read the state: at once, or step by step where tasks are looked at (`introspection`), as a job in the
inbox of the client, which isn't heard until it has its answer. Two wait: for a number of workers, and for the nodes to
say how they are now. A client may have `MAX_WAITING` of these at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from holdfast.cluster import protocol
from holdfast.cluster.clock import Alarm
from holdfast.cluster.protocol.message import Answering, RequestError
from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.watching import introspection
from holdfast.cluster.scheduler.watching.absent import Absent

#: What a client is told of a failure of the scheduler's own.
FAILED = "the scheduler failed at it, and goes on; its log says how"
#: Requests of one client that may wait for something at a time.
MAX_WAITING = 1_000
#: How long a `wait-for-workers` request waits when it does not say.
WAIT_FOR_WORKERS_SECONDS = 30.0
#: How long nodes get to say how they are, before a request is answered with what they said last.
REPORT_SECONDS = 1.0


class Requests:
    """Answers requests.

    Parameters
    ----------
    state, heartbeats, absent
        What is read.
    silences
        ``silences()`` gives the seconds since each host was heard of.
    send
        ``send(peer, message)``.
    handle
        Takes the events that some requests are.
    call_later
        ``call_later(seconds, callback, *args)`` calls back when the scheduler has listened for so long.
    describe
        The scheduler's description of itself.
    begin
        ``begin(client, job)``: have a job done for a client (`inbox`).
    failed
        ``failed(what, error)``: takes a failure of the scheduler's own, of which the client has been told.
    shut_down
        ``shut_down(reason)``.
    """

    def __init__(
        self,
        state: SchedulerState,
        heartbeats: introspection.Heartbeats,
        absent: Absent,
        *,
        silences: Callable[[], dict[str, float]],
        send: Callable[[str, tuple[Any, ...]], None],
        handle: Callable[[events.Event], None],
        call_later: Callable[..., Alarm],
        describe: Callable[[], dict[str, Any]],
        begin: Callable[[str, Iterator[None]], None],
        failed: Callable[[str, Exception], None],
        shut_down: Callable[[str], None],
    ) -> None:
        self._state = state
        self._heartbeats = heartbeats
        self._absent = absent
        self._silences = silences
        self._send = send
        self._handle_event = handle
        self._call_later = call_later
        self._describe = describe
        self._begin = begin
        self._failed = failed
        self._shut_down = shut_down
        self._answering: Answering[Iterator[None] | None] = Answering(
            protocol.requests.REQUESTS,
            {
                protocol.requests.WHO_HAS: self._who_has,
                protocol.requests.HAS_WHAT: self._has_what,
                protocol.requests.NTHREADS: self._nthreads,
                protocol.requests.INFO: self._info,
                protocol.requests.STATUS: self._status,
                protocol.requests.MEMORY: self._memory,
                protocol.requests.LIST_DATASETS: self._list_datasets,
                protocol.requests.PUBLISH: self._publish,
                protocol.requests.UNPUBLISH: self._unpublish,
                protocol.requests.GET_DATASET: self._get_dataset,
                protocol.requests.WAIT_FOR_WORKERS: self._wait_for_workers,
                protocol.requests.SHUTDOWN: self._shutdown,
            },
        )
        self._waiting: list[_Waiting] = []
        self._waiting_of: Counter[str] = Counter()  # by client

    def handle(self, client: str, request: int, operation: str, arguments: dict[str, Any]) -> Iterator[None] | None:
        """Answer a request. A job, if that is done step by step."""
        if operation not in self._answering:
            self.refuse(client, request, "ValueError", f"the scheduler knows no request {operation!r}")
            return None
        try:
            return self._answering(operation, arguments, client, request)
        except RequestError as error:
            self.refuse(client, request, "ProtocolError", str(error))
            return None

    # -- one method a request; its arguments have the names that they have in `protocol.requests`

    def _who_has(self, client: str, request: int, keys: Any = None) -> Iterator[None]:
        return self._in_steps(client, request, introspection.who_has(self._state, keys))

    def _has_what(self, client: str, request: int, nodes: Any = None) -> Iterator[None]:
        return self._in_steps(client, request, introspection.has_what(self._state, nodes))

    def _nthreads(self, client: str, request: int, workers: Any = None) -> None:
        self._reply(client, request, introspection.nthreads(self._state, workers))

    def _info(self, client: str, request: int) -> None:
        self._reply(client, request, introspection.info(self._state, self._describe(), self._heartbeats))

    def _status(self, client: str, request: int) -> None:
        self._inquire(
            client,
            request,
            lambda: introspection.status(
                self._state, self._describe(), self._heartbeats, self._silences(), self._absent.describe()
            ),
        )

    def _memory(self, client: str, request: int) -> None:
        self._inquire(client, request, lambda: introspection.memory(self._state, self._heartbeats))

    def _list_datasets(self, client: str, request: int) -> None:
        self._reply(client, request, sorted(self._state.datasets))

    def _publish(self, client: str, request: int, datasets: Any, override: bool = False) -> None:
        self._handle_event(events.DatasetsPublished(client, request, datasets, override))

    def _unpublish(self, client: str, request: int, name: str) -> None:
        self._handle_event(events.DatasetUnpublished(client, request, name))

    def _get_dataset(self, client: str, request: int, name: str) -> None:
        self._handle_event(events.DatasetRequested(client, request, name))

    def _wait_for_workers(self, client: str, request: int, n: int, timeout: float | None = None) -> None:
        seconds = WAIT_FOR_WORKERS_SECONDS if timeout is None else float(timeout)
        waiter = _WorkerWaiter(client, request, n)
        if self._wait(waiter, seconds, self._give_up, waiter, seconds):
            self.worker_joined()

    def _shutdown(self, client: str, request: int) -> None:
        self._reply(client, request, None)
        self._shut_down(f"client {self._state.clients[client].name} shut the cluster down")

    # -- answers

    def _in_steps(self, client: str, request: int, steps: introspection.Steps) -> Iterator[None]:
        try:
            while True:
                try:
                    fragment = next(steps)
                except StopIteration as done:
                    self._reply(client, request, done.value)
                    return
                if fragment is not None:
                    self._send(client, protocol.client.PART(request, fragment))
                yield
        except Exception as error:
            self.refuse(client, request, "InternalError", FAILED)
            self._failed("answering a request", error)

    def _reply(self, client: str, request: int, value: Any) -> None:
        self._send(client, protocol.client.REPLY(request, True, value))

    def refuse(self, client: str, request: int, error: str, text: str) -> None:
        """Answer with an error: its name and its text."""
        self._send(client, protocol.client.REPLY(request, False, [error, text]))

    def client_left(self, client: str) -> None:
        for waiting in [waiting for waiting in self._waiting if waiting.client == client]:
            self._drop(waiting)

    def close(self) -> None:
        """Answer nothing any more."""
        for waiting in list(self._waiting):
            self._drop(waiting)

    def _wait(self, waiting: _Waiting, seconds: float, give_up: Callable[..., None], *args: Any) -> bool:
        """Have a request wait, at most so long. False if it was refused: too many of this client's wait already."""
        if self._waiting_of[waiting.client] >= MAX_WAITING:
            text = f"{MAX_WAITING:,} requests of this client wait already; ask again when they are answered"
            self.refuse(waiting.client, waiting.request, "RuntimeError", text)
            return False
        waiting.timer = self._call_later(seconds, give_up, *args)
        self._waiting.append(waiting)
        self._waiting_of[waiting.client] += 1
        return True

    def _drop(self, waiting: _Waiting) -> None:
        self._waiting.remove(waiting)
        self._waiting_of[waiting.client] -= 1
        if not self._waiting_of[waiting.client]:
            del self._waiting_of[waiting.client]
        waiting.timer.cancel()

    # -- how the nodes are

    def _inquire(self, client: str, request: int, answer: Callable[[], introspection.Steps]) -> None:
        inquiry = _Inquiry(client, request, answer, set(self._state.hosts))
        if not self._wait(inquiry, REPORT_SECONDS, self._conclude, inquiry):
            return
        for node in self._state.hosts:
            self._send(node, protocol.node.REPORT())
        if not inquiry.nodes:
            self._conclude(inquiry)

    def node_reported(self, node: str) -> None:
        """A node has said how it is, or has left."""
        for inquiry in [waiting for waiting in self._waiting if isinstance(waiting, _Inquiry)]:
            inquiry.nodes.discard(node)
            if not inquiry.nodes:
                self._conclude(inquiry)

    def _conclude(self, inquiry: _Inquiry) -> None:
        self._drop(inquiry)
        self._begin(inquiry.client, self._in_steps(inquiry.client, inquiry.request, inquiry.answer()))

    # -- workers to come

    def worker_joined(self) -> None:
        count = len(self._state.workers)
        for waiter in [w for w in self._waiting if isinstance(w, _WorkerWaiter) and w.n <= count]:
            self._drop(waiter)
            self._reply(waiter.client, waiter.request, count)

    def _give_up(self, waiter: _WorkerWaiter, seconds: float) -> None:
        self._drop(waiter)
        address = self._describe()["address"].removeprefix("tcp://")
        text = (
            f"waited {seconds:g} s for {waiter.n} workers, {len(self._state.workers)} are there; "
            f"'holdfast start --address {address}' on another host adds some"
        )
        self.refuse(waiter.client, waiter.request, "TimeoutError", text)


class _Waiting:
    """A request whose answer takes time."""

    timer: Alarm

    def __init__(self, client: str, request: int) -> None:
        self.client = client
        self.request = request


class _WorkerWaiter(_Waiting):
    """Answered when there are so many workers."""

    def __init__(self, client: str, request: int, n: int) -> None:
        super().__init__(client, request)
        self.n = n


class _Inquiry(_Waiting):
    """Answered when these nodes have said how they are."""

    def __init__(self, client: str, request: int, answer: Callable[[], introspection.Steps], nodes: set[str]) -> None:
        super().__init__(client, request)
        self.answer = answer
        self.nodes = nodes  # only asked for membership
