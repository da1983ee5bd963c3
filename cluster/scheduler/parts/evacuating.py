"""Taking all that hosts have to other hosts, before these hosts go.

What only hosts that go have is *unsaved*, and so is what would have fewer copies without them than its holders want
(`Holder.copies`). Small results, which the scheduler has itself, are saved. An evacuation has the other hosts bring
what is unsaved, the one with most room first, and tries another one where a host can't. What no host could take is a
failure. Nothing is forgotten: as long as the hosts are there, all that they had is there.

There may be a million objects. So all of them are looked at once, one after the other (`_Look`), and after that those
of which a host that leaves tells that they may be unsaved now (``Host.news``): it has got one, or another host has one
no more.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from holdfast.cluster.scheduler.parts.carrying import Carrying, Order, Subject
from holdfast.cluster.scheduler.parts.copies import Copies
from holdfast.cluster.scheduler.tasks.follow_up import Chore, FollowUp
from holdfast.cluster.scheduler.tasks.model import Host, TaskError

#: So many deliveries of one evacuation are given out at a time.
WINDOW = 200
#: How many objects of a host are taken together, to be looked at one after the other.
SLICE = 10_000
#: Of so many hosts with most room each object gets one, as long as one of them can take it.
MAX_RANKED = 32

NO_OTHER_HOST = "there is no other host"


class _Look(Chore):
    """All that a host has is looked at once."""

    def __init__(self, evacuation: Evacuation, host: Host) -> None:
        self._evacuation = evacuation
        self._host = host
        self._slices = host.objects.slices(SLICE)
        self._subjects: list[Subject] = list(host.errors)

    def step(self) -> bool:
        if not self._evacuation.looks_at(self._host):
            return False
        if not self._subjects:
            self._subjects.extend(next(self._slices, ()))
            if not self._subjects:
                self._evacuation.looked(self._host)
                return False
        self._evacuation.may_be_unsaved(self._subjects.pop())
        return True


class Evacuation(Order):
    """Takes all that hosts have to other hosts.

    Parameters
    ----------
    hosts
        That go.
    others
        All that there are, by address: those that don't go take it.
    carrying
        Has it brought.
    copies
        Knows how many copies there are to be.
    on_change
        Called when it may have something to do (`go_on`).

    Attributes
    ----------
    failures
        Why what could be taken nowhere could not.
    """

    branching = 1 << 16

    def __init__(
        self,
        hosts: Iterable[Host],
        others: Mapping[str, Host],
        carrying: Carrying,
        copies: Copies,
        on_change: Callable[[], None],
    ) -> None:
        self.hosts = dict.fromkeys(hosts)
        self.failures: dict[Subject, str] = {}
        self._others = others
        self._carrying = carrying
        self._copies = copies
        self._on_change = on_change
        self._waiting: deque[Subject] = deque()
        self._looking: dict[Host, None] = {}  # of which not all has been looked at
        self._tried: dict[Subject, dict[Host, str]] = {}

    def look(self, follow_up: FollowUp) -> None:
        """Look for what is unsaved, from now on."""
        for host in self.hosts:
            host.news = []
            self._looking[host] = None
            follow_up.begin(_Look(self, host))

    def looks_at(self, host: Host) -> bool:
        """Whether what a host has is to be looked at still."""
        return host in self._looking

    def looked(self, host: Host) -> None:
        """All that a host had has been looked at."""
        del self._looking[host]
        self._on_change()

    def may_be_unsaved(self, subject: Subject) -> None:
        """Have an object brought if it is unsaved."""
        if self._lacks(subject, self._stay):
            self._waiting.append(subject)

    def _read_news(self) -> None:
        for host in self.hosts:
            if host.news:
                news, host.news = host.news, []
                for subject in dict.fromkeys(news):
                    self.may_be_unsaved(subject)

    @property
    def _stay(self) -> int:
        """How many hosts stay."""
        return sum(host.is_ready and not host.leaving for host in self._others.values())

    @property
    def under_way(self) -> bool:
        """Whether something is to be brought still, or it isn't known yet."""
        return bool(self._looking or self._waiting) or self._carrying.outstanding(self) > 0

    @property
    def left(self) -> int:
        """How many objects are to be brought still."""
        return len(self._waiting) + self._carrying.outstanding(self)

    def go_on(self) -> None:
        """Have more brought, as much as may be under way."""
        self._read_news()
        free = WINDOW - self._carrying.outstanding(self)
        if free <= 0 or not self._waiting:
            return
        takers = [host for host in self._others.values() if host.is_ready and not host.leaving]
        ranked = heapq.nlargest(MAX_RANKED, takers, key=self._carrying.room_in)
        while free > 0 and self._waiting:
            free -= 1
            subject = self._waiting.popleft()
            for _ in range(self._lacks(subject, len(takers))):
                host = self._host_for(subject, ranked) or self._host_for(subject, takers)
                if host is None:
                    if self._staying(subject) == 0 and not self._is_coming(subject, takers):
                        self.failures[subject] = self._why_not(subject, takers)
                    break
                self._carrying.bring(self, subject, host)

    def stop(self) -> None:
        """Have no more brought."""
        self._looking.clear()
        self._waiting.clear()
        self._carrying.withdraw(self)

    def arrived(self, subject: Subject, host: Host) -> None:
        self._tried.pop(subject, None)
        self._on_change()

    def failed(self, subject: Subject, host: Host, reason: str) -> None:
        self._tried.setdefault(subject, {})[host] = reason
        self._waiting.append(subject)
        self._on_change()

    def failures_in_words(self, limit: int = 3) -> str:
        """What could not be taken anywhere, and why."""
        named = [
            f"{subject.key!r:.200} ({subject.nbytes:,} bytes): {reason}"
            for subject, reason in list(self.failures.items())[:limit]
        ]
        more = f"; and {len(self.failures) - limit:,} more" if len(self.failures) > limit else ""
        return "; ".join(named) + more

    # -- what is unsaved

    def _lacks(self, subject: Subject, stay: int) -> int:
        """How many copies have to be made of an object while so many hosts stay."""
        if not any(host in self.hosts for host in subject.where):
            return 0  # it was released or lost, or it is made again
        if isinstance(subject, TaskError):
            wanted = 1
        elif subject.inline is not None or self._copies.is_durable(subject):
            return 0
        else:
            wanted = max(1, min(self._copies.wanted(subject), stay))
        return max(0, wanted - self._staying(subject))

    def _staying(self, subject: Subject) -> int:
        return sum(not host.leaving for host in subject.where)

    # -- where it goes

    def _host_for(self, subject: Subject, hosts: Iterable[Host]) -> Host | None:
        tried = self._tried.get(subject, ())
        found = [
            host
            for host in hosts
            if host not in subject.where
            and host not in tried
            and subject.nbytes <= host.capacity
            and not self._carrying.is_coming(subject, host)
        ]
        return max(found, key=self._carrying.room_in, default=None)

    def _is_coming(self, subject: Subject, hosts: Iterable[Host]) -> bool:
        return any(self._carrying.is_coming(subject, host) for host in hosts)

    def _why_not(self, subject: Subject, takers: Iterable[Host]) -> str:
        tried = self._tried.get(subject)
        if tried:
            return next(reversed(tried.values()))
        largest = max((host.capacity for host in takers), default=None)
        return NO_OTHER_HOST if largest is None else f"no other host's store has more than {largest:,} bytes"
