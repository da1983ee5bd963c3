"""What clients ask the scheduler, and its answers.

Most requests read the state and are answered at once. Two wait: for a number of workers, and for the nodes to say how
they are now.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.cluster.clock import Alarm
from holdfast.cluster.scheduler import events, introspection
from holdfast.cluster.scheduler.state import SchedulerState

#: How long a `wait-for-workers` request waits when it does not say.
WAIT_FOR_WORKERS_SECONDS = 30.0
#: How long nodes get to say how they are, before a request is answered with what they said last.
REPORT_SECONDS = 1.0


class Requests:
    """Answers requests.

    Parameters
    ----------
    state, heartbeats
        What is read.
    send
        ``send(peer, message)``.
    handle
        Takes the events that some requests are.
    call_later
        ``call_later(seconds, callback, *args)`` calls back when the scheduler has listened for so long.
    describe
        The scheduler's description of itself.
    shut_down
        ``shut_down(reason)``.
    """

    def __init__(
        self,
        state: SchedulerState,
        heartbeats: introspection.Heartbeats,
        *,
        send: Callable[[str, tuple[Any, ...]], None],
        handle: Callable[[events.Event], None],
        call_later: Callable[..., Alarm],
        describe: Callable[[], dict[str, Any]],
        shut_down: Callable[[str], None],
    ) -> None:
        self._state = state
        self._heartbeats = heartbeats
        self._send = send
        self._handle_event = handle
        self._call_later = call_later
        self._describe = describe
        self._shut_down = shut_down
        self._waiting: list[_Waiting] = []

    def handle(self, client: str, request: int, operation: str, arguments: dict[str, Any]) -> None:
        state = self._state
        answers: dict[str, Callable[[], Any]] = {
            "who-has": lambda: introspection.who_has(state, arguments.get("keys")),
            "has-what": lambda: introspection.has_what(state, arguments.get("nodes")),
            "nthreads": lambda: introspection.nthreads(state, arguments.get("workers")),
            "info": lambda: introspection.info(state, self._describe(), self._heartbeats),
            "list-datasets": lambda: sorted(state.datasets),
        }
        fresh_answers: dict[str, Callable[[], Any]] = {
            "status": lambda: introspection.status(state, self._describe(), self._heartbeats),
            "memory": lambda: introspection.memory(state, self._heartbeats),
        }
        if operation in answers:
            self._reply(client, request, answers[operation]())
        elif operation in fresh_answers:
            self._inquire(client, request, fresh_answers[operation])
        elif operation == "publish":
            name, data, keys = str(arguments["name"]), arguments["data"], arguments["keys"]
            override = bool(arguments.get("override"))
            self._handle_event(events.DatasetPublished(client, request, name, data, keys, override))
        elif operation == "unpublish":
            self._handle_event(events.DatasetUnpublished(client, request, str(arguments["name"])))
        elif operation == "get-dataset":
            self._handle_event(events.DatasetRequested(client, request, str(arguments["name"])))
        elif operation == "wait-for-workers":
            self._wait_for_workers(client, request, int(arguments["n"]), arguments.get("timeout"))
        elif operation == "shutdown":
            self._reply(client, request, None)
            self._shut_down(f"client {state.clients[client].name} shut the cluster down")
        else:
            self._refuse(client, request, "ValueError", f"the scheduler knows no request {operation!r}")

    def _reply(self, client: str, request: int, value: Any) -> None:
        self._send(client, ("reply", request, True, value))

    def _refuse(self, client: str, request: int, error: str, text: str) -> None:
        self._send(client, ("reply", request, False, [error, text]))

    def client_left(self, client: str) -> None:
        for waiting in [waiting for waiting in self._waiting if waiting.client == client]:
            self._drop(waiting)

    def close(self) -> None:
        """Answer nothing any more."""
        for waiting in list(self._waiting):
            self._drop(waiting)

    def _wait(self, waiting: _Waiting, seconds: float, give_up: Callable[..., None], *args: Any) -> None:
        waiting.timer = self._call_later(seconds, give_up, *args)
        self._waiting.append(waiting)

    def _drop(self, waiting: _Waiting) -> None:
        self._waiting.remove(waiting)
        waiting.timer.cancel()

    # -- how the nodes are

    def _inquire(self, client: str, request: int, answer: Callable[[], Any]) -> None:
        inquiry = _Inquiry(client, request, answer, set(self._state.hosts))
        self._wait(inquiry, REPORT_SECONDS, self._conclude, inquiry)
        for node in self._state.hosts:
            self._send(node, ("report",))
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
        self._reply(inquiry.client, inquiry.request, inquiry.answer())

    # -- workers to come

    def _wait_for_workers(self, client: str, request: int, n: int, timeout: float | None) -> None:
        seconds = WAIT_FOR_WORKERS_SECONDS if timeout is None else float(timeout)
        waiter = _WorkerWaiter(client, request, n)
        self._wait(waiter, seconds, self._give_up, waiter, seconds)
        self.worker_joined()

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
        self._refuse(waiter.client, waiter.request, "TimeoutError", text)


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

    def __init__(self, client: str, request: int, answer: Callable[[], Any], nodes: set[str]) -> None:
        super().__init__(client, request)
        self.answer = answer
        self.nodes = nodes  # only asked for membership
