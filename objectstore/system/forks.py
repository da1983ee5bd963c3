"""What the forks of this process may still look at.

A forked child has all views that its parent had, and can't say when it lets go of them: the pins are the parent's. So
the parent keeps what it had at that moment pinned for the child, whatever becomes of its own views. This is a *lease*;
it ends when the child has ended, and all that it forked in turn, or when they have become other programs, which have
none of this memory. A pipe tells: its one end is inherited with the memory and never closed by hand, the other is
watched here. A child that closes descriptors which it doesn't know, as daemons do, is told from one that has ended by
its *witness* (``witness.py``): the lease goes on until that ends, too.

Python has to know of the fork, as it does of ``os.fork`` and ``multiprocessing``. For one that a library makes by
itself nothing is leased.

If the parent ends first, its pins stay as they were at the server, leases included, as long as a fork has its lifeline
(``quarantine.py``).

What is leased can't be known before the fork: until the very moment of it other threads take pins, and end some.
So pins don't end from before the fork until after it, and what there is then is what the child has, or more::

    before the fork      pipe and witness are made; ended pins are set aside from now on
    fork                 the child leaves all of this alone, but keeps one end of the pipe, and the witness mapped
    after it             what is pinned is leased; then what was set aside ends

A hook must not fail: the child would come into being all the same, and read what others write. So no hook waits for a
lock that its own thread may have; each is registered twice, since an interrupt (Ctrl-C) may cut one short, and does
nothing a second time; and where a pipe or a thread can't be had, the lease ends with this process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import weakref
from typing import Protocol

from holdfast.objectstore.system.file_maps import FileMap
from holdfast.objectstore.system.witness import ASK_SECONDS, Witness, attest

logger = logging.getLogger("holdfast.objectstore")


class Lender(Protocol):
    """What has pins. What is done for a lease that it was done for already does nothing."""

    def set_aside(self, lease: Lease) -> None:
        """A fork is near: no pin ends until ``lend``."""

    def lend(self, lease: Lease) -> bool:
        """Keeps what is pinned until ``take_back``; whether there is anything."""

    def take_back(self, lease: Lease) -> None:
        """Nobody looks at what was lent with the lease any more."""


class Lease:
    """What one fork is lent, and the pipe and the witness that tell when it ends."""

    __slots__ = ("inherited_fd", "inherited_map", "is_prepared", "lenders", "watched_fd", "witness")

    def __init__(self) -> None:
        self.lenders: list[Lender] = []
        self.watched_fd = self.inherited_fd = -1
        self.witness: Witness | None = None
        self.inherited_map: FileMap | None = None
        self.is_prepared = False

    def prepare(self, lenders: list[Lender]) -> None:
        """Before the fork. Twice is no error."""
        self.lenders = lenders
        if lenders and self.watched_fd < 0:
            try:
                if self.witness is None or self.witness.fd < 0:
                    self.witness = Witness()
                self.inherited_map = self.inherited_map or attest(self.witness.fd)
                self.watched_fd, self.inherited_fd = os.pipe()
            except OSError as error:
                self.forget_witness()
                logger.warning(
                    "What this process looks at in its object store is kept until it ends: it forks, and what it "
                    "forks can't be watched (%s)",
                    error.strerror,  # the error itself would keep what its frames hold
                )
        for lender in lenders:
            lender.set_aside(self)
        self.is_prepared = True

    def begin(self) -> None:
        """After the fork, in the parent. Twice is no error."""
        lent = [lender.lend(self) for lender in self.lenders]
        fd, self.inherited_fd = self.inherited_fd, -1
        if fd >= 0:
            os.close(fd)
        self.inherited_map = None
        if not any(lent):
            self.end()
            fd, self.watched_fd = self.watched_fd, -1
            if fd >= 0:
                os.close(fd)
            self.forget_witness()
        elif self.watched_fd >= 0:
            with contextlib.suppress(RuntimeError, OSError):  # there are no more threads or descriptors
                _watch.add(self)

    def end(self) -> None:
        """Gives back everything that was lent."""
        lenders, self.lenders = self.lenders, []
        for lender in lenders:
            lender.take_back(self)

    def is_attested(self) -> bool:
        """Whether the fork has what was lent to it, though the pipe has ended."""
        return self.witness is not None and self.witness.is_mapped()

    def forget_witness(self) -> None:
        """Closes this process's end of the witness. Twice is no error."""
        if self.witness is not None:
            self.witness.close()


class Watch:
    """Waits for the ends of leases, in a thread that there is while there are any."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._leases: dict[int, Lease] = {}  # by their pipes
        self._attested: list[Lease] = []  # whose pipes have ended, and not they
        self._poll: select.epoll | None = None
        self._thread: threading.Thread | None = None

    def add(self, lease: Lease) -> None:
        """Ends the lease when its pipe does. Twice is no error."""
        with self._lock:
            fd = lease.watched_fd
            if fd < 0:  # it has ended meanwhile
                return
            self._leases[fd] = lease
            if self._poll is None:
                self._poll = select.epoll()
            with contextlib.suppress(FileExistsError):
                self._poll.register(fd, 0)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="holdfast-store-forks", daemon=True)
                self._thread.start()

    @property
    def watched_fds(self) -> set[int]:
        """Of all leases here. Takes no lock."""
        return set(self._leases)

    def leave_to_parent(self) -> None:
        """In a forked child: closes what it inherited of this but for the leases' descriptors. Takes no lock."""
        if self._poll is not None:
            self._poll.close()

    def _run(self) -> None:
        poll = self._poll
        assert poll is not None
        while True:
            # Nothing is asked for, so it's the end of a pipe.
            for fd, _ in poll.poll(ASK_SECONDS if self._attested else None):
                with self._lock:
                    lease = self._leases.pop(fd)
                    lease.watched_fd = -1  # before its number may be another file's
                    poll.unregister(fd)
                    os.close(fd)
                    self._attested.append(lease)
                del lease
            for lease in [lease for lease in self._attested if not lease.is_attested()]:
                with self._lock:
                    self._attested.remove(lease)
                    lease.forget_witness()
                lease.end()
                del lease
            with self._lock:
                if not self._leases and not self._attested:
                    poll.close()
                    self._poll = self._thread = None
                    return


_lenders: weakref.WeakValueDictionary[int, Lender] = weakref.WeakValueDictionary()
_forking: dict[int, Lease] = {}  # by the thread that forks
_inherited: list[Lease] = []  # whose witnesses stay mapped as long as this process lives
_watch = Watch()


def register(lender: Lender) -> None:
    """From now on ``lender`` lends to what this process forks."""
    _lenders[id(lender)] = lender


def _before() -> None:
    lease = _forking.setdefault(threading.get_ident(), Lease())
    if not lease.is_prepared:
        references = _lenders.valuerefs()  # all at once: another thread may be connecting
        lease.prepare([lender for reference in references if (lender := reference()) is not None])


def _after_in_parent() -> None:
    thread = threading.get_ident()
    lease = _forking.get(thread)
    if lease is not None:
        lease.begin()
        del _forking[thread]


def _after_in_child() -> None:
    global _lenders, _watch
    # The other ends stay open for as long as this process does what it was forked for. A lease may be in both places,
    # if another thread has not ended its fork yet: its descriptor is closed once.
    parents = _watch
    watched = {lease.watched_fd for lease in _forking.values() if lease.watched_fd >= 0} | parents.watched_fds
    _inherited.extend(_forking.values())
    for lease in _inherited:
        lease.forget_witness()
    _forking.clear()
    _lenders, _watch = weakref.WeakValueDictionary(), Watch()
    for fd in watched:
        os.close(fd)
    parents.leave_to_parent()


for _ in range(2):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent)
os.register_at_fork(after_in_child=_after_in_child)
