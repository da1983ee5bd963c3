"""What the forks of this process may still look at.

A forked child has all views that its parent had, and can't say when it lets go of them: the pins are the parent's. So
the parent keeps what it had pinned at that moment, for the child, whatever becomes of its own views. It does so until
the child has ended, and all that it forked in turn, or until they have become other programs, which have none of this
memory. A pipe tells: its one end is inherited with the memory and never closed by hand, the other is
watched here. A child that closes descriptors which it doesn't know, as daemons do, is told from one that has ended by
its *sentinel page* (``sentinel_page.py``): the fork counts as alive until that isn't mapped any more, too.

Python has to know of the fork, as it does of ``os.fork`` and ``multiprocessing``. For one that a library makes by
itself nothing is kept.

If the parent ends first, its pins stay as they were at the server, with those that are kept for forks, as long as a
fork has its lifeline (``server/orphans.py``).

What has to be kept can't be known before the fork: until the very moment of it other threads take pins, and end some.
So pins don't end from before the fork until after it, and what there is then is what the child has, or more::

    before the fork      pipe and sentinel page are made; pins that end wait from now on
    fork                 the child leaves all of this alone, but keeps one end of the pipe, and the sentinel page mapped
    after it             what is pinned is kept for the fork; then what has waited ends

A hook must not fail: the child would come into being all the same, and read what others write. So no hook waits for a
lock that its own thread may have; each is registered twice, since an interrupt (Ctrl-C) may cut one short, and does
nothing a second time; and where a pipe or a thread can't be had, what is kept stays kept until this process ends.
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
from holdfast.objectstore.system.sentinel_page import ASK_SECONDS, SentinelPage, map_sentinel

logger = logging.getLogger("holdfast.objectstore")


class PinHolder(Protocol):
    """What has pins. What is done for a fork that it was done for already does nothing."""

    def before_fork(self, fork: Fork) -> None:
        """A fork is near: no pin ends until ``after_fork``."""

    def after_fork(self, fork: Fork) -> bool:
        """Keeps what is pinned until the fork has ended; whether there is anything."""

    def fork_ended(self, fork: Fork) -> None:
        """The fork looks at what was kept for it no more."""


class Fork:
    """One forked child, for which pins are kept, and the pipe and the sentinel page that tell when it ends."""

    __slots__ = ("holders", "inherited_fd", "inherited_map", "is_prepared", "sentinel", "watched_fd")

    def __init__(self) -> None:
        self.holders: list[PinHolder] = []
        self.watched_fd = self.inherited_fd = -1
        self.sentinel: SentinelPage | None = None
        self.inherited_map: FileMap | None = None
        self.is_prepared = False

    def prepare(self, holders: list[PinHolder]) -> None:
        """Before the fork. Twice is no error."""
        self.holders = holders
        if holders and self.watched_fd < 0:
            try:
                if self.sentinel is None or self.sentinel.fd < 0:
                    self.sentinel = SentinelPage()
                self.inherited_map = self.inherited_map or map_sentinel(self.sentinel.fd)
                self.watched_fd, self.inherited_fd = os.pipe()
            except OSError as error:
                self.forget_sentinel()
                logger.warning(
                    "What this process looks at in its object store is kept until it ends: it forks, and what it "
                    "forks can't be watched (%s)",
                    error.strerror,  # the error itself would keep what its frames hold
                )
        for holder in holders:
            holder.before_fork(self)
        self.is_prepared = True

    def begin(self) -> None:
        """After the fork, in the parent. Twice is no error."""
        kept = [holder.after_fork(self) for holder in self.holders]
        fd, self.inherited_fd = self.inherited_fd, -1
        if fd >= 0:
            os.close(fd)
        self.inherited_map = None
        if not any(kept):
            self.end()
            fd, self.watched_fd = self.watched_fd, -1
            if fd >= 0:
                os.close(fd)
            self.forget_sentinel()
        elif self.watched_fd >= 0:
            with contextlib.suppress(RuntimeError, OSError):  # there are no more threads or descriptors
                _watch.add(self)

    def end(self) -> None:
        """Gives up everything that was kept for it."""
        holders, self.holders = self.holders, []
        for holder in holders:
            holder.fork_ended(self)

    def is_mapping(self) -> bool:
        """Whether the fork has its views still, though the pipe has ended."""
        return self.sentinel is not None and self.sentinel.is_mapped()

    def forget_sentinel(self) -> None:
        """Closes this process's end of the sentinel. Twice is no error."""
        if self.sentinel is not None:
            self.sentinel.close()


class ForkWatch:
    """Waits for the ends of forks, in a thread that there is while there are any."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._forks: dict[int, Fork] = {}  # by their pipes
        self._mapping: list[Fork] = []  # whose pipes have ended, and not they
        self._poll: select.epoll | None = None
        self._thread: threading.Thread | None = None

    def add(self, fork: Fork) -> None:
        """Ends the fork when its pipe does. Twice is no error."""
        with self._lock:
            fd = fork.watched_fd
            if fd < 0:  # it has ended meanwhile
                return
            self._forks[fd] = fork
            if self._poll is None:
                self._poll = select.epoll()
            with contextlib.suppress(FileExistsError):
                self._poll.register(fd, 0)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="holdfast-store-forks", daemon=True)
                self._thread.start()

    @property
    def watched_fds(self) -> set[int]:
        """Of all forks here. Takes no lock."""
        return set(self._forks)

    def leave_to_parent(self) -> None:
        """In a forked child: closes what it inherited of this but for the forks' descriptors. Takes no lock."""
        if self._poll is not None:
            self._poll.close()

    def _run(self) -> None:
        poll = self._poll
        assert poll is not None
        while True:
            # Nothing is asked for, so it's the end of a pipe.
            for fd, _ in poll.poll(ASK_SECONDS if self._mapping else None):
                with self._lock:
                    fork = self._forks.pop(fd)
                    fork.watched_fd = -1  # before its number may be another file's
                    poll.unregister(fd)
                    os.close(fd)
                    self._mapping.append(fork)
                del fork
            for fork in [fork for fork in self._mapping if not fork.is_mapping()]:
                with self._lock:
                    self._mapping.remove(fork)
                    fork.forget_sentinel()
                fork.end()
                del fork
            with self._lock:
                if not self._forks and not self._mapping:
                    poll.close()
                    self._poll = self._thread = None
                    return


_holders: weakref.WeakValueDictionary[int, PinHolder] = weakref.WeakValueDictionary()
_forking: dict[int, Fork] = {}  # by the thread that forks
_inherited: list[Fork] = []  # whose sentinels stay mapped as long as this process lives
_watch = ForkWatch()


def register(holder: PinHolder) -> None:
    """From now on ``holder`` keeps its pins for what this process forks."""
    _holders[id(holder)] = holder


def _before() -> None:
    fork = _forking.setdefault(threading.get_ident(), Fork())
    if not fork.is_prepared:
        references = _holders.valuerefs()  # all at once: another thread may be connecting
        fork.prepare([holder for reference in references if (holder := reference()) is not None])


def _after_in_parent() -> None:
    thread = threading.get_ident()
    fork = _forking.get(thread)
    if fork is not None:
        fork.begin()
        del _forking[thread]


def _after_in_child() -> None:
    global _holders, _watch
    # The other ends stay open for as long as this process does what it was forked for. A fork may be in both places,
    # if another thread has not ended its fork yet: its descriptor is closed once.
    parents = _watch
    watched = {fork.watched_fd for fork in _forking.values() if fork.watched_fd >= 0} | parents.watched_fds
    _inherited.extend(_forking.values())
    for fork in _inherited:
        fork.forget_sentinel()
    _forking.clear()
    _holders, _watch = weakref.WeakValueDictionary(), ForkWatch()
    for fd in watched:
        os.close(fd)
    parents.leave_to_parent()


for _ in range(2):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent)
os.register_at_fork(after_in_child=_after_in_child)
