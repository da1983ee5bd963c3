"""The journal of a scheduler's process: what the machine decides is written before anything that follows leaves.

`Journal.open` takes the state directory and reads what an earlier scheduler has left. From then on the server gives
each event's decisions and instructions to `Journal.commit`, which writes the decisions as one batch and passes the
instructions on:

==========================================  ========================================================================
the batch is written                        the instructions leave at once
it says what a power cut must not undo      replies among the instructions leave when the disk has the batch (`LASTING`)
(publishing, for one)
it can't be written                         the instructions wait with all later ones, and nobody is heard; the batch
                                            is tried again every `RETRY_SECONDS`, for `GIVE_UP_SECONDS`
==========================================  ========================================================================

A disk that gets full is noticed before: `is_full` says from then on that nothing new is to be begun, while the writer's
reserve takes what ends things. Closed files are summed up in a process of their own (`cluster/journal/compaction.py`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from holdfast.cluster.errors import JournalError
from holdfast.cluster.journal import compaction, records
from holdfast.cluster.journal.batches import Record
from holdfast.cluster.journal.directory import StateDirectory, files
from holdfast.cluster.journal.group_sync import GroupSync
from holdfast.cluster.journal.recovery import Recovered, recover
from holdfast.cluster.journal.tables import Tables
from holdfast.cluster.journal.writer import FILE_NBYTES, RESERVE_NBYTES, Writer
from holdfast.cluster.protocol import requests
from holdfast.cluster.scheduler.io.progress import Position, positions
from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.tasks.instructions import Instruction, Reply

logger = logging.getLogger(__name__)

#: A batch with an entry of one of these tables is on the disk before anybody is told.
LASTING = frozenset({"datasets"})
#: The requests that begin something which the journal has to keep; what ends things, or only looks, is none of them.
ADDING = frozenset(
    request.operation
    for request in (
        requests.ACQUIRE_LOCKS,
        requests.ACQUIRE_SEMAPHORE,
        requests.ERRAND,
        requests.OPEN_QUEUE,
        requests.OPEN_SEMAPHORE,
        requests.PUBLISH,
        requests.PUT,
        requests.PUT_QUIETLY,
        requests.REGISTER_PLUGIN,
        requests.SET_METADATA,
        requests.SET_VARIABLE,
    )
)
#: How often it is tried to write what could not be written, and to get the reserve back.
RETRY_SECONDS = 0.5
#: A journal that can't be written for so long is given up, and the scheduler with it.
GIVE_UP_SECONDS = 60.0
#: How many logs are summed up at the latest, however small they are.
MOST_LOGS = 32
#: A temporary directory may lie in memory.
TEMPORARY_RESERVE_NBYTES = 1 << 20
#: So much damage is told of.
DAMAGE_SHOWN = 20

_ENTRIES = frozenset({records.PUT, records.REMOVE})


class Journal:
    """Keeps the journal of a scheduler. Used in the thread of its event loop from `start` on.

    Use `Journal.open`.

    Attributes
    ----------
    number
        Which scheduler of its cluster this one is.
    epoch
        The same for peers: it names the cluster, too.
    positions
        How far earlier schedulers have heard each peer, by name; known when a machine has `recovered`.
    """

    def __init__(self, directory: StateDirectory, recovered: Recovered) -> None:
        self.number = directory.epoch
        self.epoch = f"{directory.cluster}/{directory.epoch}"
        self._directory = directory
        self.positions: dict[str, Position] = {}
        self._tables = recovered.tables
        self._damage = list(map(str, recovered.damage))
        self._writer = Writer(
            directory,
            recovered.next_file,
            recovered.next_batch,
            reserve_nbytes=TEMPORARY_RESERVE_NBYTES if directory.is_temporary else RESERVE_NBYTES,
            on_closed=lambda number: self._sum_up(),
        )
        self._syncs = GroupSync(self._writer.sync)
        self._held: deque[tuple[Sequence[Record], list[Instruction]]] = deque()
        self._held_since = 0.0
        self._reason = ""  # why nothing can be written
        self._retrying: asyncio.TimerHandle | None = None
        self._summing_up: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    def open(cls, path: Path, *, is_temporary: bool = False) -> Journal:
        """Take a state directory, and read what is there. A temporary one need not survive the machine.

        Raises
        ------
        JournalError
            Another scheduler has the directory, it is a later version's or of two clusters, or nothing can be written
            there.
        """
        directory = StateDirectory.open(path, is_temporary=is_temporary)
        try:
            recovered = recover(directory)
            for damage in recovered.damage:
                logger.error("the journal is damaged, and nothing that it can't account for is deleted: %s", damage)
            for torn in recovered.torn:
                logger.warning("the journal ends in what was not written to its end, which is left out: %s", torn)
            return cls(directory, recovered)
        except BaseException:
            directory.close()
            raise

    def recovered(self, make: Callable[[], SchedulerState]) -> SchedulerState:
        """A machine that begins with what earlier schedulers have left.

        If it can't, for whatever reason, all of that is set aside: it is not of this version's making, or shows a fault
        of this version's, and no next try would be better.
        """
        tables, self._tables = self._tables, Tables()
        state = make()
        try:
            state.recover(tables, self.number, is_damaged=bool(self._damage))
            self.positions = positions(tables)
        except Exception as error:
            place = self._directory.set_all_aside(before=self._writer.file_number)
            reason = f"no scheduler could go on with what was in it, which was moved to {place}: {error!r:.500}"
            logger.exception("the journal is given up: %s", reason)
            self._damage.append(reason)
            state = make()
            state.recover(Tables(), self.number, is_damaged=True)
        return state

    def start(
        self,
        tell: Callable[[list[Instruction]], None],
        stand_still: Callable[[bool], None],
        give_up: Callable[[str], None],
    ) -> None:
        """Begin to take decisions, in the running event loop.

        Parameters
        ----------
        tell
            Carries out instructions.
        stand_still
            Called with whether nobody is to be heard, since nothing can be written.
        give_up
            Called with a reason when that takes too long.
        """
        self._loop = asyncio.get_running_loop()
        self._tell = tell
        self._stand_still = stand_still
        self._give_up = give_up
        self._sum_up()
        if self._writer.is_short:
            self._retry_later()

    # -- writing

    def commit(self, decided: Sequence[Record], instructions: list[Instruction]) -> None:
        """Write what one event has led to, then have its instructions carried out."""
        if self._closed:
            return  # nothing may leave that is not written
        if self._held:
            self._held.append((decided, instructions))
        elif not decided:
            self._tell(instructions)
        elif self._write(decided):
            self._tell_when_lasting(decided, instructions)
        else:
            self._held.append((decided, instructions))
            self._held_since = time.monotonic()
            self._stand_still(True)

    @property
    def is_full(self) -> bool:
        """Whether nothing new is to be begun, since the disk is full."""
        return self._writer.is_short

    @property
    def is_stuck(self) -> bool:
        """Whether nothing leaves, since nothing can be written."""
        return bool(self._held)

    @property
    def refusal(self) -> str:
        """What is said to those that would begin something new."""
        return (
            f"the disk of the cluster's state directory {self._directory.path} is full, so the scheduler takes nothing "
            "new. Make room there, and it goes on; what the cluster has is served meanwhile"
        )

    def _write(self, decided: Sequence[Record]) -> bool:
        try:
            self._writer.append(decided)
        except JournalError as error:
            if not self._held:
                logger.error("nothing goes on until the journal can be written: %s", error)
            self._reason = str(error)
            self._retry_later()
            return False
        if self._writer.is_short:
            self._retry_later()
        return True

    def _tell_when_lasting(self, decided: Sequence[Record], instructions: list[Instruction]) -> None:
        for record in decided:
            if record[0] in _ENTRIES and record[1] in LASTING:
                break
        else:
            self._tell(instructions)
            return
        replies: list[Instruction] = [instruction for instruction in instructions if isinstance(instruction, Reply)]
        self._tell([instruction for instruction in instructions if not isinstance(instruction, Reply)])

        def done(error: OSError | None) -> None:
            self._loop.call_soon_threadsafe(self._synced, replies, error)

        self._syncs.ask(done)

    def _synced(self, replies: list[Instruction], error: OSError | None) -> None:
        if error is not None:  # it is in the kernel's hands: safe from all but a power cut
            logger.error("the disk did not take the journal: %s", error)
        if not self._closed:
            self._tell(replies)

    # -- a disk that is full

    def _retry_later(self) -> None:
        if self._retrying is None and not self._closed:
            self._retrying = self._loop.call_later(RETRY_SECONDS, self._retry)

    def _retry(self) -> None:
        self._retrying = None
        if self._writer.is_short:
            self._writer.regain()
        was_held = bool(self._held)
        while self._held and self._write(self._held[0][0]):
            self._tell_when_lasting(*self._held.popleft())
        if self._held:
            if time.monotonic() - self._held_since > GIVE_UP_SECONDS:
                self._give_up(self._reason)
            return
        if was_held:
            logger.warning("the journal can be written again")
            self._stand_still(False)
        if self._writer.is_short:
            self._retry_later()

    # -- summing up

    def _sum_up(self) -> None:
        """Have closed files summed up, if it is worth the effort: there is as much in them as in the last summary."""
        if self._summing_up is not None or self._closed:
            return
        found = [file for file in files(self._directory.path) if file.number < self._writer.file_number]
        logs = [file for file in found if not file.is_summary]
        summaries = sum(file.path.stat().st_size for file in found if file.is_summary)
        nbytes = sum(file.path.stat().st_size for file in logs)
        if logs and (len(logs) >= MOST_LOGS or nbytes >= max(FILE_NBYTES, summaries)):
            self._summing_up = self._loop.create_task(self._run_compaction(logs[-1].number))

    async def _run_compaction(self, through: int) -> None:
        module, path = "holdfast.cluster.journal.compaction", str(self._directory.path)
        command = [sys.executable, "-m", module, path, str(through), compaction.ENDS_WITH_INPUT]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            try:
                assert process.stderr is not None
                said = await process.stderr.read()
                code = await process.wait()
            except asyncio.CancelledError:
                process.kill()
                await process.wait()
                raise
            if code:
                logger.error("the journal could not be summed up, and grows: %s", said.decode(errors="replace").strip())
        except OSError as error:
            logger.error("the journal could not be summed up, and grows: %s", error)
        finally:
            self._summing_up = None

    # -- the end

    def describe(self) -> dict[str, Any]:
        """For people."""
        return {
            "directory": str(self._directory.path),
            "nbytes": self._nbytes(),
            "full": self.is_full,
            "stuck": self._reason if self._held else None,
            "damage": self._damage[:DAMAGE_SHOWN],
            "damages": len(self._damage),
        }

    def _nbytes(self) -> int:
        nbytes = 0
        for file in files(self._directory.path):
            try:
                nbytes += os.stat(file.path).st_size
            except FileNotFoundError:
                continue
        return nbytes

    async def close(self, *, forget: bool) -> None:
        """Bring everything to the disk, and end.

        Parameters
        ----------
        forget
            The cluster has ended in order: nothing is to come back, and the next scheduler begins another one.
        """
        if self._closed:
            return
        self._closed = True
        if self._retrying is not None:
            self._retrying.cancel()
        if self._summing_up is not None:
            self._summing_up.cancel()
            await asyncio.wait([self._summing_up])
        await asyncio.to_thread(self._close, forget)

    def _close(self, forget: bool) -> None:
        self._syncs.close()
        self._writer.close()
        if forget:
            self._directory.forget()
        self._directory.close()
