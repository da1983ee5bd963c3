"""The clients of a run, each a process of its own. One that was killed has another one in its place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.chaos.operations import PATIENCE_SECONDS
from tests.chaos.place import Place
from tests.chaos.timeline import Answer, Deed, Timeline
from tests.chaos.verdicts import GIVEN_UP

REPOSITORY = Path(__file__).parent.parent.parent
#: A client that has said nothing for so long hangs: an operation has calls one after the other that wait for long.
SILENCE_SECONDS = 2 * PATIENCE_SECONDS


class ClientProcess:
    """One client.

    Attributes
    ----------
    number : int
        No other client of the run has it.
    heard : float
        When it last said something.
    has_begun : bool
        It has said something.
    """

    def __init__(self, number: int, command: Sequence[str], log: Path, heard: Callable[[Answer], None]) -> None:
        self.number = number
        self.heard = time.monotonic()
        self.has_begun = False
        self._on_answer = heard
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=REPOSITORY
            )
        self._thread = threading.Thread(target=self._listen, name=f"chaos-client-{number}", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """How it has ended; None while it runs."""
        return self._process.poll()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not line.endswith("}\n"):
                break  # it was killed as it wrote
            told = json.loads(line)
            self.heard, self.has_begun = time.monotonic(), True
            self._on_answer(Answer(**{**told, "fragile": tuple(told["fragile"]), "places": tuple(told["places"])}))

    def tell_end(self) -> None:
        """It is to end after what it is doing."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def tell_stacks(self) -> None:
        """It is to write to its log what its threads are doing."""
        os.kill(self.pid, signal.SIGUSR1)

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        """Wait for its end, and for the last that it has said."""
        self._process.wait()
        self._thread.join()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()


class Clients:
    """Keeps so many of them going.

    Parameters
    ----------
    count : int
    seed : int
    addresses : sequence of str
        The scheduler's, of which each client has the next: they may be those of links.
    operations : sequence of str
        What they do; empty: all.
    place : Place
        Where each writes what it says besides, and which locks it has.
    timeline : Timeline
    on_answer : callable
        Takes each `Answer`, in the thread of its client.

    Attributes
    ----------
    killed : int
        How many clients the nemesis has ended, and the scheduler has given up.
    failures : list of str
        What has gone wrong with clients, beside what their answers say.
    """

    def __init__(
        self,
        count: int,
        seed: int,
        addresses: Sequence[str],
        operations: Sequence[str],
        place: Place,
        timeline: Timeline,
        on_answer: Callable[[Answer], None],
    ) -> None:
        self.killed = 0
        self.failures: list[str] = []
        self._seed = seed
        self._addresses = addresses
        self._operations = operations
        self._place = place
        self._timeline = timeline
        self._on_answer = on_answer
        self._numbers = 0
        self._all = [self._start() for _ in range(count)]

    def _start(self) -> ClientProcess:
        number, self._numbers = self._numbers, self._numbers + 1
        command = [sys.executable, "-m", "tests.chaos.client_program"]
        command += ["--address", self._addresses[number % len(self._addresses)], "--number", str(number)]
        command += ["--seed", str(self._seed), "--holders", str(self._place.holders)]
        command += ["--remote"] if number % 3 == 2 else []
        command += ["--operations", *self._operations] if self._operations else []
        client = ClientProcess(number, command, self._place.logs / f"client-{number}.log", self._on_answer)
        self._timeline.say(f"client {client.pid} begins as number {number}")
        return client

    def look(self, *, start_again: bool = True) -> bool:
        """See to those that have ended and those that hang; returns whether any runs."""
        for client in list(self._all):
            if client.code is None:
                if time.monotonic() - client.heard > SILENCE_SECONDS:
                    self._hangs(client)
                continue
            self._all.remove(client)
            client.close()
            # Whether a client may be given up is judged with its last answer.
            if self._was_killed(client) or client.code == GIVEN_UP:
                self.killed += 1
            elif client.code or start_again:
                self.failures.append(f"client {client.number} ({client.pid}) has ended by itself, with {client.code}")
            if start_again:
                self._all.append(self._start())
        return bool(self._all)

    @property
    def are_ready(self) -> bool:
        """Whether each has done something already."""
        return all(client.has_begun for client in self._all)

    def _hangs(self, client: ClientProcess) -> None:
        words = f"it has said nothing for {SILENCE_SECONDS:g} s; its log has its stacks"
        self.failures.append(f"client {client.number} ({client.pid}) hangs: {words}")
        client.tell_stacks()
        time.sleep(1.0)  # for what it writes; nothing tells when it has
        client.kill()

    def _was_killed(self, client: ClientProcess) -> bool:
        deeds = self._timeline.deeds(0.0, time.monotonic())
        return any(isinstance(deed, Deed) and deed.act == "killed" and deed.pid == client.pid for deed in deeds)

    def tell_end(self) -> None:
        """All of them are to end after what they are doing."""
        for client in self._all:
            client.tell_end()

    def kill(self) -> None:
        """End all of them at once."""
        for client in self._all:
            client.kill()
            client.close()
        self._all = []
