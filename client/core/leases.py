"""One lease that a client asks for, or has: of a lock, of a place at a semaphore.

A lease has a number that the client gives to it. Whatever ends a wait for it, a timeout of the caller's own, a
cancelled ``await``, an interrupt, the client says that it does not want the lease; the scheduler knows whether it was
granted meanwhile, and passes it on (`holdfast.cluster.scheduler.parts.leases`). To release a lease needs no answer.

What was granted in a task, and is not released, ends with the run, whatever the run has come to; what was granted in an
actor ends with the actor (`Driver.held`).
"""

from __future__ import annotations

import contextlib
import itertools

from holdfast.client.core.core import Core
from holdfast.client.drivers.effects import Effect, Operation
from holdfast.cluster.errors import ConnectError
from holdfast.cluster.protocol.message import Request

#: Gives the numbers of leases, and of whatever else is given up by number. No client is in two processes.
new_number = itertools.count(1).__next__


class Lease:
    """One that a client asks for, or has.

    Parameters
    ----------
    core
        The client's.
    release
        What says that it isn't wanted any more.
    held
        Where it is noted while it is granted, by its number.
    of_block
        Whether it is to end with a block of code, a ``with``.
    """

    __slots__ = ("_of_run", "core", "held", "number", "of_block", "release")

    def __init__(self, core: Core, release: Request, held: dict[int, Lease], *, of_block: bool = False) -> None:
        self.core = core
        self.release = release
        self.held = held
        self.of_block = of_block
        self.number = new_number()
        self._of_run = core.driver.held

    def acquire(self, asking: Effect) -> Operation[bool]:
        """Ask for it. Whether it was granted."""
        try:
            granted: bool = yield asking
            if granted:
                self.held[self.number] = self
                if self._of_run is not None:
                    self._of_run[self.number] = self
        except BaseException:
            self.give_up()
            raise
        return granted

    def give_up(self) -> None:
        """It isn't wanted, whatever has become of it. Twice is no harm."""
        self._forget()
        self.core.session.tell(self.release, lease=self.number)

    def end(self) -> None:
        """What it belongs to has ended: the scheduler is told before anything else is said."""
        self._forget()
        with contextlib.suppress(ConnectError):
            self.core.session.tell_now(self.release, lease=self.number)

    def give_back(self) -> bool:
        """Release it. False if another thread has done so."""
        self.core.session.tell_now(self.release, lease=self.number)
        return self._forget()

    def _forget(self) -> bool:
        if self._of_run is not None:
            self._of_run.pop(self.number, None)
        return self.held.pop(self.number, None) is not None
