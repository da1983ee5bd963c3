"""The functions of tasks: each is kept once, as long as a task or a client names it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from holdfast.cluster.journal import records
from holdfast.cluster.scheduler.tasks.decisions import Decisions
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.instructions import ForgetFunctions, Instructions
from holdfast.cluster.scheduler.tasks.model import Worker
from holdfast.cluster.scheduler.tasks.names import Digest, Payload


class Function:
    """The pickle of a function, kept while a task refers to it or a client that sent it may name it again."""

    __slots__ = ("blob", "clients", "tasks")

    def __init__(self, blob: Payload) -> None:
        self.blob = blob
        self.tasks = 0
        self.clients = 0


class Functions:
    """All functions, by digest.

    Parameters
    ----------
    instructions
        Where instructions go.
    workers
        The scheduler's table; only read here.
    decisions
        Takes what is to be in the journal.

    Attributes
    ----------
    table
        The functions. `Lifecycle` counts the tasks in ``Function.tasks``.
    """

    def __init__(self, instructions: Instructions, workers: Mapping[str, Worker], decisions: Decisions) -> None:
        self.table: dict[Digest, Function] = {}
        self._decisions = decisions
        self._instructions = instructions
        self._workers = workers

    def sent(self, client: Client, functions: Iterable[tuple[Digest, Payload]]) -> None:
        """A client has sent functions, and may name them from now on."""
        for digest, blob in functions:
            function = self.table.get(digest)
            if function is None:
                function = self.table[digest] = Function(blob)
                self._decisions.note(records.put("functions", digest, blob))
            if digest not in client.functions:
                client.functions[digest] = None
                function.clients += 1
                self._decisions.note(records.put_for("functions", client.id, digest, None))

    def forgotten(self, client: Client, digests: Iterable[Digest]) -> None:
        """A client names functions no more."""
        for digest in digests:
            if client.functions.pop(digest, self) is None:
                self._decisions.note(records.remove_for("functions", client.id, digest))
                function = self.table[digest]
                function.clients -= 1
                self.drop_unused(digest, function)

    def drop_unused(self, digest: Digest, function: Function) -> None:
        """Forget a function, here and in workers, if no task names it any more."""
        if function.tasks or function.clients:
            return
        del self.table[digest]
        self._decisions.note(records.remove("functions", digest))
        for worker in self._workers.values():
            if digest in worker.functions:
                worker.functions.remove(digest)
                self._instructions.add(ForgetFunctions, worker.address, digest)
