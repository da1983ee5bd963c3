"""What is right, known beside the state machine: what each key means, and which errors have a cause.

A value is a hash of the task's specification and of the values that its run has read. A run is right if it is of a task
that was submitted under its key and if each value that it reads is a right one of the key that it reads. A client may
read what right runs have made, and nothing else. Most keys are submitted once: these have one value, however often they
are computed.

An error has a *cause*: something that the simulator did to the key or to what it was to be made from. `causes` has them
by the kind of error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from holdfast.cluster.failures.loading import load_exception

Value = bytes


class Wrong(AssertionError):
    """Something is not as it should be."""


class Broken(Exception):
    """What a task raises that is to fail."""


@dataclass(eq=False)
class Recipe:
    """How a task is made, and how it behaves.

    Attributes
    ----------
    number
        Its payload says it.
    key, reads
        Its key, and the keys that it reads.
    seconds, is_small
        How long a run takes, and whether the result rides along in messages.
    behaviour
        "plain", "fails", "fails once", "kills" its worker, "reschedules" itself once, makes an "actor", or is a
        "parent": it submits tasks and waits for them.
    children, submits
        How many tasks a parent submits, and these, once it has.
    runs
        How often it has been run.
    """

    number: int
    key: Any
    reads: tuple[Any, ...]
    seconds: float
    is_small: bool
    behaviour: str = "plain"
    children: int = 0
    runs: int = 0
    submits: list[Recipe] = field(default_factory=list)

    @property
    def payload(self) -> bytes:
        return b"%d" % self.number


class Oracle:
    """Knows what is right.

    Attributes
    ----------
    values
        The right values of each key.
    causes
        The keys that may fail with an error of each kind, with all that is made from them.
    deaths
        How often a worker died that had been sent a task, by key.
    is_chosen
        The keys that are used for one thing after another.
    shared
        Those that several clients bring.
    """

    def __init__(self, max_failures: int) -> None:
        self.values: dict[Any, set[Value]] = {}
        self.causes: dict[str, set[Any]] = {}
        self.deaths: Counter[Any] = Counter()
        self.is_chosen: set[Any] = set()
        self.shared: set[Any] = set()
        self._recipes: dict[int, Recipe] = {}
        self._of: dict[Any, list[Recipe]] = {}
        self._parents: dict[Any, Any] = {}  # of what tasks have submitted, by key
        self._keys: dict[Value, Any] = {}
        self._data: set[Any] = set()  # the keys of what clients have stored
        self._max_failures = max_failures

    # -- what keys mean

    def recipe(self, key: Any, reads: Iterable[Any], **options: Any) -> Recipe:
        """A task that somebody is about to submit."""
        recipe = Recipe(len(self._recipes) + 1, key, tuple(dict.fromkeys(reads)), **options)
        self._recipes[recipe.number] = recipe
        self._of.setdefault(key, []).append(recipe)
        return recipe

    def child(self, parent: Recipe, number: int) -> Recipe:
        """A task that another one submits, whose result has a future of it."""
        recipe = self.recipe(f"{parent.key}.{number}", (), seconds=parent.seconds / 4, is_small=True)
        self._parents[recipe.key] = parent.key
        return recipe

    def inside(self, key: Any) -> list[Any]:
        """The keys of the futures in the result of a key."""
        return [each.key for recipe in self._of.get(key, ()) for each in recipe.submits]

    def recipe_of(self, payload: bytes) -> Recipe:
        return self._recipes[int(payload)]

    def brought(self, key: Any, value: Value) -> None:
        """A client has stored data under a key."""
        self.values.setdefault(key, set()).add(value)
        self._keys[value] = key
        self._data.add(key)

    def lost_value(self, value: Value) -> None:
        """The last copy of a value is gone. Data can't be made again, nor what is made of data that is gone as well."""
        key = self._keys.get(value)
        if key is not None and not self._data.isdisjoint(self.below(key)):
            self.cause("ObjectLostError", key)

    def lost_handle(self, value: Value, actors: Container[Any]) -> None:
        """The same of a value that may be the handle of an actor."""
        key = self._keys.get(value)
        if key in actors:
            self.cause("ActorLostError", key)

    def made(self, recipe: Recipe, read: dict[Any, Value]) -> Value:
        """The value that a run of a task makes of what it has read."""
        if set(read) != set(recipe.reads):
            raise Wrong(f"a run of {recipe.key!r} reads {sorted(map(str, read))} instead of {recipe.reads}")
        for key, value in read.items():
            self.check(key, value, f"a run of {recipe.key!r}")
        value = blake2b(
            b"%d:%b" % (recipe.number, b"".join(read[key] for key in recipe.reads)), digest_size=16
        ).digest()
        values = self.values.setdefault(recipe.key, set())
        values.add(value)
        self._keys[value] = recipe.key
        if len(values) > 1 and recipe.key not in self.is_chosen and not self._varies(recipe.key):
            raise Wrong(f"{recipe.key!r} has two values")
        return value

    def _varies(self, key: Any) -> bool:
        return any(below in self.is_chosen for below in self.below(key))

    def check(self, key: Any, value: Value, reader: str) -> None:
        if value not in self.values.get(key, ()):
            raise Wrong(f"{reader} reads a wrong value of {key!r}")

    def below(self, key: Any) -> set[Any]:
        """A key, and all that it is made from."""
        found = {key}
        stack = [key]
        while stack:
            for recipe in self._of.get(stack.pop(), ()):
                for other in recipe.reads:
                    if other not in found:
                        found.add(other)
                        stack.append(other)
        return found

    # -- why something fails

    def cause(self, kind: str, *keys: Any) -> None:
        """From now on these may fail with an error of this kind."""
        self.causes.setdefault(kind, set()).update(keys)

    def has_failed(self, key: Any, raised: Any, text: str) -> None:
        """A client is told that a key has failed. Raises `Wrong` if nothing has caused that."""
        kind = self.kind_of(raised, text)
        if not self._has_cause(kind, key):
            raise Wrong(f"{key!r} has failed without a cause, with {kind}: {text:.300}")

    def _has_cause(self, kind: str, key: Any) -> bool:
        below = self.below(key)
        if kind == "KilledWorker":
            return any(self.deaths[each] >= self._max_failures for each in below)
        causes = self.causes.get(kind, set())
        return None in causes or not causes.isdisjoint(below)

    def was_cancelled(self, key: Any, client: str) -> None:
        """A client is told that a key is gone. Raises `Wrong` if nobody has cancelled it, or let go of it."""
        parent = self._parents.get(key)
        if not self._has_cause("CancelledError", key) and not (
            parent is not None and self._has_cause("CancelledError", parent)
        ):
            raise Wrong(f"{client} is told that {key!r} was cancelled, and nobody has done that")

    def call_has_failed(self, actor: int, reads: Iterable[Any], raised: Any, text: str) -> None:
        """A client is told that a call of an actor has failed, which was to read these keys."""
        kind = self.kind_of(raised, text)
        if kind not in ("ActorLostError", "CancelledError") and not any(self._has_cause(kind, key) for key in reads):
            raise Wrong(f"a call of the actor {actor} has failed without a cause, with {kind}: {text}")

    @staticmethod
    def kind_of(raised: Any, text: str) -> str:
        """The class of an error that the scheduler or a worker has told of."""
        if isinstance(raised, str):
            return raised
        if isinstance(raised, tuple) or bytes(raised) == b"broken":
            return Broken.__name__
        if bytes(raised) == b"full":
            return "StoreFullError"
        error, _ = load_exception(bytes(raised), text)
        return type(error).__name__
