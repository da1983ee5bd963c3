"""A run: faults, healing, accounts."""

from __future__ import annotations

import functools
import logging
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from holdfast import Client, LocalCluster, Variable
from holdfast.cluster.processes import restarts
from tests.chaos import accounts
from tests.chaos.client_program import attempt
from tests.chaos.clients import Clients
from tests.chaos.operations import (
    COUNTER,
    PATIENCE_SECONDS,
    QUEUED,
    Operation,
    Work,
    check_dataset,
    keep,
    queue,
    variable,
)
from tests.chaos.place import Place
from tests.chaos.timeline import Answer, Timeline
from tests.chaos.verdicts import judge
from tests.chaos.victims import Nemesis
from tests.support.proxy import Proxy

#: How often the run looks at its clients, and acts.
TICK_SECONDS = 0.05
#: And how often it looks at a cluster at rest.
LOOK_SECONDS = 0.25
#: The number of this process among the clients.
RUN = -1
#: A cluster at rest that is not whole again after so long hangs, or has not let go of what nothing holds: a busy
#: machine is slow.
HEALING_SECONDS = 300.0
#: An end that takes longer hangs.
END_SECONDS = 300.0
#: A failure shows so many of the last entries of the timeline; a file has all of them.
SHOWN = 60


@dataclass(frozen=True)
class Options:
    """What a run is like.

    Attributes
    ----------
    seconds : float
        How long the stage of faults lasts.
    seed : int
    hosts, workers, clients : int
    kinds : tuple of str
        The kinds of victims; empty: all.
    operations : tuple of str
        What clients do; empty: everything.
    silence_seconds : float
        For so long a host may be silent.
    validate : bool
        Whether the scheduler checks all that it has after each event.
    """

    seconds: float
    seed: int
    hosts: int = 2
    workers: int = 4
    clients: int = 3
    kinds: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    silence_seconds: float = 6.0
    validate: bool = True


class Run:
    """One run of chaos.

    Parameters
    ----------
    options : Options
    place : Place
        Where the cluster lives. The environment of this process points there already.
    progress : callable
        Is told, now and then, how it stands, in a line.

    Attributes
    ----------
    failures : list of str
        What is wrong, in words.
    timeline : Timeline
    interrupted : bool
        The stage of faults was ended before its time, by `interrupt`.
    """

    def __init__(self, options: Options, place: Place, progress: Callable[[str], None]) -> None:
        self.options = options
        self.failures: list[str] = []
        self.timeline = Timeline()
        self.interrupted = False
        self._place = place
        self._progress = progress
        self._wake = threading.Event()
        self._stage = "starting"
        self._counted = 0

    def interrupt(self) -> None:
        """End the stage of faults now. The others follow."""
        self.interrupted = True
        self._wake.set()

    def run(self) -> None:
        """All stages. What is wrong stands in `failures` afterwards."""
        options = self.options
        logging.basicConfig(
            filename=self._place.logs / "run.log", format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        os.environ["HOLDFAST_SILENCE_TIMEOUT"] = os.environ["HOLDFAST_CLIENT_RESUME_TIMEOUT"] = str(
            options.silence_seconds
        )
        restarts.MAX_PAUSE_SECONDS = 1.0  # what is killed all the time is to be there to be killed again
        with LocalCluster(
            options.workers,
            1,
            n_hosts=options.hosts,
            object_store_memory="32 MiB",
            spill_directory=self._place.spill,
            durable=self._place.durable,
            log_directory=self._place.logs,
            silence_logs=False,
            name="chaos",
            scheduler_kwargs={"validate": options.validate},
        ) as cluster:
            with Client(cluster, name="chaos-run") as client, Proxy(cluster.scheduler_address) as link:
                self._work(cluster, client, link)
            self._stage = "ending"
            began = time.monotonic()
        if time.monotonic() - began > END_SECONDS:
            self.failures.append(f"the cluster took {time.monotonic() - began:.0f} s to end")
        self._look_for_remains()

    def _work(self, cluster: LocalCluster, client: Client, link: Proxy) -> None:
        options, timeline = self.options, self.timeline
        Variable(COUNTER, client=client).set(0)
        client.run_on_scheduler(os.getpid)  # so that there are an assistant and nannies to kill
        client.run(os.getpid, nanny=True)
        nemesis = Nemesis(
            options.seed, options.kinds, self._place, link, timeline, silence_seconds=options.silence_seconds
        )
        clients = Clients(
            options.clients, options.seed, (cluster.scheduler_address, link.address), options.operations,
            self._place, timeline, self._take,
        )  # fmt: skip
        try:
            self._stage = "starting clients"
            self._until(lambda: clients.look(start_again=False) and clients.are_ready, "clients don't begin")
            self._stage = "faults"
            end = time.monotonic() + options.seconds
            while time.monotonic() < end and not self._is_over(clients):
                nemesis.act()
                clients.look()
                self._tell()
                self._wake.wait(TICK_SECONDS)
            nemesis.heal()
            timeline.say("all faults are over")
            self._heal(cluster, client, clients)
        finally:
            nemesis.heal()
            clients.kill()
            self.failures += clients.failures
        if not self.failures:
            self._settle(cluster, client, clients)

    def _is_over(self, clients: Clients) -> bool:
        return bool(self.interrupted or self.failures or clients.failures)

    # -- what clients say

    def _take(self, answer: Answer) -> None:
        """In the thread of a client."""
        if not answer.error:
            self.timeline.right[answer.operation] += 1
            return
        deeds = self.timeline.deeds(answer.since, answer.ended)
        allowed = judge(answer, deeds, self.options.silence_seconds)
        what = f"client {answer.client}: {answer.operation}: {answer.error}: {answer.text}"
        if allowed is None:
            self.timeline.unexplained[answer.error] += 1
            began, ended = answer.since - self.timeline.began, answer.ended - self.timeline.began
            self.failures.append(f"{what} (what it used is from {began:.3f}, it ended at {ended:.3f})")
        else:
            self.timeline.explained[answer.error] += 1
        self.timeline.add(answer.ended, f"{what:.300}" if allowed else f"FAILURE {what}")

    # -- after the faults

    def _heal(self, cluster: LocalCluster, client: Client, clients: Clients) -> None:
        self._stage = "healing"
        clients.tell_end()
        self._until(lambda: not clients.look(start_again=False), "clients go on after their end")
        self._until(
            lambda: accounts.is_whole(cluster.describe(), self.options.hosts, self.options.workers),
            "hosts or workers have not come back",
            lambda: str(cluster.describe()),
        )

    def _settle(self, cluster: LocalCluster, client: Client, clients: Clients) -> None:
        """What is left by name is right, and the books agree, before and after all is let go of."""
        self._stage = "reading what is left"
        work = Work(client, random.Random(f"run {self.options.seed}"), self._place.holders)
        for name in sorted(client.list_datasets()):
            self._try(work, functools.partial(check_dataset, name=name))
        self._check_counter(client, clients)
        self._try(work, keep)
        self._stage = "comparing accounts"
        self._until(
            lambda: not accounts.unlike(cluster, client),
            "stores and scheduler differ",
            lambda: "\n  ".join(accounts.unlike(cluster, client)),
        )
        for _ in range(QUEUED):
            self._try(work, queue)
        self._try(work, variable)
        work.kept.clear()
        accounts.clear(client)
        self._until(
            lambda: not accounts.still_there(cluster.describe()),
            "something is left that nothing holds",
            lambda: "\n  ".join([*accounts.still_there(cluster.describe()), str(client.memory())]),
        )

    def _check_counter(self, client: Client, clients: Clients) -> None:
        """The lock has let one client after the other count. What a killed one was doing may count, or not."""
        value = Variable(COUNTER, client=client).get(timeout=PATIENCE_SECONDS)
        confirmed = self.timeline.right["count"]
        if not confirmed <= value <= confirmed + clients.killed:
            self.failures.append(
                f"the counter is {value}: it was counted {confirmed} times, and {clients.killed} clients were killed"
            )

    def _look_for_remains(self) -> None:
        self._stage = "looking for remains"
        self._until(lambda: not self._place.processes(), "processes are left", lambda: str(self._place.processes()))
        if files := self._place.files():
            self.failures.append(f"files are left: {files}")
        if not self.failures and (durable := accounts.durable_left(str(self._place.durable))):
            self.failures.append(f"files of durable datasets are left: {durable}")

    # -- helpers

    def _try(self, work: Work, operation: Operation) -> None:
        """Do something as clients do."""
        self._take(attempt(RUN, operation, work))

    def _until(self, condition: Callable[[], bool], what: str, more: Callable[[], str] | None = None) -> None:
        deadline = time.monotonic() + HEALING_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                found = f":\n  {more()}" if more is not None else ""
                self.failures.append(f"{what} after {HEALING_SECONDS:g} s{found}")
                return
            self._tell()
            time.sleep(LOOK_SECONDS)

    def _tell(self) -> None:
        timeline = self.timeline
        self._progress(
            f"{time.monotonic() - timeline.began:6.0f} s  {self._stage}: {timeline.checked:,} operations checked, "
            f"{timeline.done_to('killed'):,} processes killed, {timeline.done_to('stopped'):,} stopped; errors: "
            f"{timeline.explained.total():,} that may be, {timeline.unexplained.total():,} that may not"
        )
