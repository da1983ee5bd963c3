"""Which errors may reach a user, and when: a table. Every other error is a failure of the system.

An error has to be explained by what was done to the cluster since the oldest of what the operation used was made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from holdfast.cluster.scheduler.machine.machine import MAX_FAILURES
from tests.chaos.timeline import Answer, Deed

#: The exit code of a client that was given up.
GIVEN_UP = 3


@dataclass(frozen=True)
class Circumstances:
    """What was done to the cluster while an operation, or what it used, was there.

    Attributes
    ----------
    deeds : tuple of Deed
    silence_seconds : float
        A host that is silent for so long is given up.
    """

    deeds: tuple[Deed, ...]
    silence_seconds: float

    def killed(self, *kinds: str) -> int:
        """How many processes of these kinds were killed."""
        return sum(deed.act == "killed" and deed.kind in kinds for deed in self.deeds)

    def hosts_gone(self, places: tuple[str, ...] = ()) -> int:
        """How many hosts have died, or may have been given up since they stood still: of these; empty: of all.

        One whose address isn't known may have been any.
        """
        dead = [deed for deed in self.deeds if deed.kind == "agent" and (deed.act == "killed" or self._is_long(deed))]
        if places:
            dead = [deed for deed in dead if not deed.addresses or not set(places).isdisjoint(deed.addresses)]
        return len(dead) + sum(deed.kind == "scheduler" and self._is_long(deed) for deed in self.deeds)

    def clients_silent(self) -> set[int]:
        """The clients that stood still for so long that they may have been given up."""
        return {deed.pid for deed in self.deeds if deed.kind == "client" and self._is_long(deed)}

    def _is_long(self, deed: Deed) -> bool:
        return deed.act == "stopped" and deed.seconds >= self.silence_seconds / 2


@dataclass(frozen=True)
class Allowed:
    """An error that may reach a user.

    Attributes
    ----------
    error : str
        Its type.
    operations : tuple of str
        Where it may; empty: everywhere.
    when : callable
        ``when(answer, circumstances)``: whether it may, here.
    why : str
        What the documentation says of it.
    """

    error: str
    operations: tuple[str, ...]
    when: Callable[[Answer, Circumstances], bool]
    why: str

    def explains(self, answer: Answer, circumstances: Circumstances) -> bool:
        """Whether an answer's error may be, by this row."""
        is_here = not self.operations or answer.operation in self.operations
        return is_here and answer.error == self.error and self.when(answer, circumstances)


def is_given_up(answer: Answer) -> bool:
    """Whether a client has learned that the scheduler has given it up."""
    says_so = re.search(r"the session has ended|does not know the client \S+ any more", answer.text)
    return answer.error == "ConnectError" and says_so is not None


def _stood_still(answer: Answer, circumstances: Circumstances) -> bool:
    return is_given_up(answer) and answer.pid in circumstances.clients_silent()


def _names_fragile(answer: Answer, circumstances: Circumstances) -> bool:
    is_gone = circumstances.hosts_gone(answer.places) > 0
    return is_gone and any(key in answer.text for key in answer.fragile)


def _other_stood_still(answer: Answer, circumstances: Circumstances) -> bool:
    return not circumstances.clients_silent().isdisjoint(map(int, re.findall(r"process (\d+)", answer.text)))


def _killed_often(answer: Answer, circumstances: Circumstances) -> bool:
    return circumstances.killed("worker", "agent") >= MAX_FAILURES


def _actor_gone(answer: Answer, circumstances: Circumstances) -> bool:
    return circumstances.killed("worker") + circumstances.hosts_gone() > 0


def _assistant_gone(answer: Answer, circumstances: Circumstances) -> bool:
    return circumstances.killed("assistant") > 0


def _asked_of_another(answer: Answer, circumstances: Circumstances) -> bool:
    is_unsure = "started again" in answer.text and not is_given_up(answer)
    return is_unsure and circumstances.killed("scheduler") > 0


ALLOWED = (
    Allowed(
        "ObjectLostError", ("scattered",), _names_fragile,
        "data with one copy and no recipe is lost with its host, and the error names it",
    ),
    Allowed(
        "KilledWorker", (), _killed_often,
        f"a task is given up when it is charged for the deaths of {MAX_FAILURES} workers",
    ),
    Allowed(
        "TooMany", ("exclusive", "limited"), _other_stood_still,
        "a client that stands still for longer than it may be away is given up, and others get what it had",
    ),
    Allowed(
        "ConnectError", (), _stood_still,
        "a client that stands still for longer than it may be away is given up, and is told so",
    ),
    Allowed("ActorLostError", ("actor",), _actor_gone, "the state of an actor is lost with its worker"),
    Allowed(
        "ConnectError", ("beside_scheduler",), _assistant_gone,
        "what the assistant was doing is an error for those that wait for it",
    ),
    Allowed(
        "ConnectError", ("beside_scheduler", "beside_hosts"), _asked_of_another,
        "a function that a scheduler had passed on before it died may have been called, and isn't called again",
    ),
)  # fmt: skip


def judge(answer: Answer, deeds: Iterable[Deed], silence_seconds: float) -> Allowed | None:
    """The row of the table that explains the error of an answer; None: nothing does."""
    circumstances = Circumstances(tuple(deeds), silence_seconds)
    return next((allowed for allowed in ALLOWED if allowed.explains(answer, circumstances)), None)
