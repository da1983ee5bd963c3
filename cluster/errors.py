"""The errors of the cluster: what connecting, authenticating, scheduling and publishing can raise."""

from __future__ import annotations

import builtins
from concurrent.futures import CancelledError as _CancelledError
from typing import Any

from holdfast.objectstore.errors import DurableError as DurableError  # as the scheduler names it (`error_named`)
from holdfast.objectstore.errors import HoldfastError

#: What to do about a store without room.
MAKE_ROOM = (
    "Make smaller pieces, let go of futures and datasets ('holdfast memory' shows what holds the space), or start the "
    "host with a larger object store ('holdfast start --object-store-memory', LocalCluster(object_store_memory=))"
)


class ConnectError(HoldfastError, OSError):
    """No connection to an address could be made, or it was lost."""


class AuthenticationError(ConnectError):
    """The two ends of a connection do not share a token."""


class VersionMismatchError(ConnectError):
    """The two ends of a connection speak different versions of the protocol."""


class ProtocolError(HoldfastError):
    """The peer sent something that is not a valid frame or message."""


class InternalError(HoldfastError):
    """The scheduler failed at something that it should have been able to do; its log says how."""


class KilledWorker(HoldfastError):
    """A task was given up because the workers that ran it kept dying.

    Attributes
    ----------
    task : key
        That of the task; None if its key is very long.
    last_worker : str
        The address of the worker that died last.
    allowed_failures : int
        After how many deaths the task would have run once more.
    reason : str
        How that worker has died: the signal or the exit code, and how much memory it had by itself.
    """

    def __init__(
        self,
        text: str = "",
        task: Any = None,
        last_worker: str | None = None,
        allowed_failures: int | None = None,
        reason: str = "",
    ) -> None:
        super().__init__(text)
        self.task = task
        self.last_worker = last_worker
        self.allowed_failures = allowed_failures
        self.reason = reason


class BlockedTasksError(HoldfastError, RuntimeError):
    """A task can't wait for others, because too many tasks of its worker do so already."""


class NoWorkerError(HoldfastError):
    """No worker of the cluster can ever run a task: it asks for more, or for others, than there are."""


class ObjectLostError(HoldfastError):
    """The only copies of an object are gone and there is no way to compute it again."""


class NotCopiedError(HoldfastError):
    """Data could not be copied to another host, where it was to lie."""


class ActorLostError(HoldfastError):
    """The worker that had an actor is gone, and the actor's state with it."""


class CancelledError(HoldfastError, _CancelledError):
    """The result was asked for of a future that was cancelled or released."""


class RemoteError(HoldfastError):
    """Stands for a task's exception that could not be sent; carries its type, message and traceback as text."""


class JournalError(HoldfastError):
    """The journal of a scheduler can't be read or written."""


class JournalFullError(JournalError, OSError):
    """There is no room for more of the journal on its disk."""


class Reschedule(HoldfastError):
    """A task raises it to be run again, on another worker if there is one that may run it.

    That is no failure, and takes nothing of the task's ``retries``. A task that raises it a thousand times fails with
    it.

    Examples
    --------
    >>> def on_a_free_gpu():
    ...     if not gpu_is_free():
    ...         raise Reschedule
    ...     return compute()
    """


class _DatasetError(HoldfastError, KeyError):
    """About the name of a dataset."""

    def __str__(self) -> str:  # a KeyError's is the repr of a key
        return str(self.args[0]) if self.args else ""


class DatasetExistsError(_DatasetError, ValueError):
    """A dataset of this name is published already."""


class DatasetNotFoundError(_DatasetError):
    """No dataset of this name is published."""


def error_named(name: str, text: str) -> Exception:
    """The error that the scheduler named: one of these, or a builtin one.

    Examples
    --------
    >>> error_named("KilledWorker", "it died"), error_named("Unknown", "what?")
    (KilledWorker('it died'), RemoteError('Unknown: what?'))
    """
    kind = _class_named(name)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        return RemoteError(f"{name}: {text}")
    return kind(text)


def is_text(error: Exception) -> bool:
    """Whether `error_named` makes the same error from the name of its class and its text.

    Examples
    --------
    >>> is_text(ObjectLostError("it is gone")), is_text(KilledWorker("it died", task="x"))
    (True, False)
    """
    is_bare = error.__cause__ is None and error.__context__ is None and not error.__dict__
    return is_bare and error.args == (str(error),) and _class_named(type(error).__name__) is type(error)


def _class_named(name: str) -> Any:
    return globals().get(name) or getattr(builtins, name, None)
