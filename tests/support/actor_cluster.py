"""A cluster around the state machine that has actors: workers that keep calls, and clients that hear of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from scheduler_harness import SMALL, Cluster

from holdfast.cluster.failures.loading import load_exception
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks import instructions as to_do


class ActorCluster(Cluster):
    """Applies what is said about actors to pretended workers and clients.

    Attributes
    ----------
    actors : dict
        Those of each worker.
    calls : dict
        For each worker the calls that it has, and has not ended, by number and in their order.
    begun : dict
        For each worker the calls that it has begun: actor, caller and client's number.
    answers : dict
        What each client was told of each of its calls, and how often that was.
    dropped : list
        The actors that workers were told to drop.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self.actors: dict[str, set[int]] = {}
        self.calls: dict[str, dict[int, to_do.CallEntry]] = {}
        self.ended: list[tuple[int, str, int]] = []  # actor, caller and client's number of each call that has ended
        self.sent: list[tuple[int, str, int]] = []  # the same, of each call of a client
        self.answers: dict[tuple[str, int], list[to_do.CalledEntry]] = {}
        self.dropped_actors: list[int] = []
        self._request_of: dict[int, int] = {}  # the client's number of a call
        self._requests = itertools.count(1)
        super().__init__(*args, **options)

    def _apply(self, instruction: to_do.Instruction) -> None:
        if instruction.peer in self.departing:
            return
        if isinstance(instruction, to_do.RunCalls):
            for entry in instruction.items:
                number, actor, _, method, _, dependencies = entry
                assert actor in self.actors[instruction.peer], "the worker does not know the actor"
                assert all(isinstance(d[1], bytes) for d in dependencies), "a dependency has no result"
                self.calls[instruction.peer][number] = entry
                self._request_of[number] = int(method.rpartition("-")[2])
        elif isinstance(instruction, to_do.DropCalls):
            for number in instruction.items:
                self.calls[instruction.peer].pop(number, None)
        elif isinstance(instruction, to_do.DropActors):
            for actor in instruction.items:
                assert not any(entry[1] == actor for entry in self.calls[instruction.peer].values()), "it has calls"
                self.actors[instruction.peer].discard(actor)
                self.dropped_actors.append(actor)
        elif isinstance(instruction, to_do.ReportCalled):
            for entry in instruction.items:
                assert instruction.peer in self.clients
                self.answers.setdefault((instruction.peer, entry[0]), []).append(entry)
                if entry[3] is not None and entry[3][0] is not None:
                    self.clients[instruction.peer][entry[3][0]] = "memory"
        else:
            super()._apply(instruction)

    def add_worker(self, host: str, nthreads: int = 1, resources: dict[str, float] | None = None) -> str:
        address = super().add_worker(host, nthreads, resources)
        self.actors[address], self.calls[address] = set(), {}
        return address

    def forget_calls(self) -> None:
        """Workers are gone, and their calls with them."""
        for worker in set(self.calls) - set(self.runs):
            del self.calls[worker], self.actors[worker]

    def make(self, client: str, key: Any, **options: Any) -> int:
        """An actor of a client; its number."""
        self.submit(client, {key: []}, actor=True, **options)
        return self.end_making(key)

    def end_making(self, key: Any) -> int:
        """The run of a task has made an actor, and its result is there."""
        number = self.begin_making(key)
        self.finish(key, inline=b"handle", nbytes=SMALL)
        return number

    def begin_making(self, key: Any) -> int:
        """The run of a task has made an actor, whose handle is not there yet."""
        worker, entry = self.startable_entry(key)
        self.actors[worker].add(entry[1])
        self.handle(events.ActorsMade(worker, [(entry[1], "Counter")]))
        return entry[1]

    def call(self, client: str, actor: int, keys: Sequence[Any] = ()) -> int:
        """A client calls a method; by which number."""
        request = next(self._requests)
        self.sent.append((actor, client, request))
        self.handle(events.CallsSent(client, [(request, actor, f"method-{request}", b"args", tuple(keys))]))
        return request

    def worker_of(self, actor: int) -> str | None:
        """Where an actor lives."""
        return next((worker for worker, actors in self.actors.items() if actor in actors), None)

    def waiting(self, actor: int) -> list[int]:
        """The clients' numbers of the calls that the worker of an actor has."""
        worker = self.worker_of(actor)
        return [] if worker is None else [self._request_of[n] for n, e in self.calls[worker].items() if e[1] == actor]

    def end_call(self, worker: str, number: int, *, ok: bool = True, stored: bool = False, keys: Any = ()) -> None:
        """A worker has done a call."""
        _, actor, caller, *_ = self.calls[worker].pop(number)
        self.ended.append((actor, caller, self._request_of[number]))
        place = None
        if stored:
            object_id = self.new_object()
            self.stores[worker.rpartition("/")[0]].add(object_id)
            self.nbytes[object_id] = SMALL
            self.values[object_id] = object_id
            place = (object_id, SMALL, "bytes")
        entry = (number, ok, None if stored else b"value", place, "" if ok else "text", tuple(keys))
        self.handle(events.CallsDone(worker, [entry]))

    def end_next(self, actor: int, **how: Any) -> None:
        """The worker of an actor does the call that has waited for longest."""
        worker = self.worker_of(actor)
        assert worker is not None
        number = next(number for number, entry in self.calls[worker].items() if entry[1] == actor)
        self.end_call(worker, number, **how)

    def miss_call(self, actor: int) -> int:
        """The worker of an actor can't read what its first call depends on; the call's client's number."""
        worker = self.worker_of(actor)
        assert worker is not None
        number, entry = next((n, e) for n, e in self.calls[worker].items() if e[1] == actor)
        del self.calls[worker][number]
        key, object_id, _, _ = entry[5][0]
        self.handle(events.CallsMissing(worker, [(number, key, object_id)]))
        return self._request_of[number]

    def answer(self, client: str, request: int) -> to_do.CalledEntry | None:
        """What a client was told of a call."""
        (answer,) = self.answers.get((client, request), [None])
        return answer

    def error(self, client: str, request: int) -> BaseException:
        """The error that a client was told of a call."""
        answer = self.answer(client, request)
        assert answer is not None
        assert not answer[1]
        return load_exception(bytes(answer[2] or b""), answer[4])[0]
