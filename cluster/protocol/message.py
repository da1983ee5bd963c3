"""What a message is, which peer says which messages, and the table by which a receiver takes them.

A `Message` is defined once, in the module of the two that speak (`client`, `worker`, `node`). Its definition serves
all of these:

=====================  ================================================================
the sender             builds one by a call: ``FINISHED(results)`` is the plain tuple that travels
the receiver           has a `Dispatch`, which checks a message and gives its fields to the handler of its kind
`cutting`, ``frames``  find which list of it may be cut in pieces
`document`             writes the tables of ``docs/protocol.md``
the tests              make right and wrong messages of every kind
=====================  ================================================================

So a new message is one definition and one handler. A `Dispatch` without a handler for it can't be made.

A `Request` is what a client asks and the scheduler answers. It travels inside of one message (`client.REQUEST`); its
arguments have names, so that later versions may add some.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.protocol.shapes import Fields, Listed, Shape, found

Result = TypeVar("Result")


class Message:
    """One kind of message.

    Parameters
    ----------
    operation
        What it begins with.
    meaning
        What it says, for the docs, in full sentences.
    cut
        The field whose list may be cut: several messages with a part of the list in each, and all else the same, say
        what one says with the whole list.
    unless
        A field: where it is not nil, the message is not cut.
    **fields
        What follows the operation. Where the first is a list, an error names its entries by the operation alone:
        ``release[3]``.

    Examples
    --------
    >>> from holdfast.cluster.protocol.shapes import Integer
    >>> TURN = Message("turn", "Counts up.", number=Integer())
    >>> TURN(3)
    ('turn', 3)
    """

    __slots__ = ("_begin", "_checks", "_length", "cut", "fields", "meaning", "operation", "unless")

    def __init__(
        self,
        operation: str,
        meaning: str,
        /,
        *,
        cut: str | None = None,
        unless: str | None = None,
        **fields: Shape,
    ) -> None:
        for name, known in (("cut", cut), ("unless", unless)):
            if known is not None and known not in fields:
                raise ValueError(f"{operation}: {name}={known!r} is none of its fields")
        self.operation = operation
        self.meaning = meaning
        self.cut = cut
        self.unless = unless
        self.fields = fields
        self._begin = (operation,)
        self._length = 1 + len(fields)
        #: For each field: where it stands in the message, its name in errors, and what checks it.
        self._checks = [
            (place, operation if place == 1 and isinstance(shape, Listed) else f"{operation}.{name}", shape.check)
            for place, (name, shape) in enumerate(fields.items(), 1)
        ]

    def __repr__(self) -> str:
        return f"<message {self.operation!r}: {', '.join(self.fields) or 'nothing'}>"

    def __call__(self, *fields: Any) -> tuple[Any, ...]:
        """Such a message, ready to be sent. The sender sees to it that the fields are right."""
        if len(fields) + 1 != self._length:
            raise TypeError(f"{self!r} expected, {len(fields)} fields given")
        return self._begin + fields

    def check(self, message: tuple[Any, ...]) -> None:
        """Raise a `ProtocolError` if a message of this operation has not these fields."""
        if len(message) != self._length:
            names = ", ".join(self.fields) or "nothing"
            raise ProtocolError(f"{self.operation}: {names} expected, an array of {len(message) - 1} found")
        for place, where, check in self._checks:
            check(message[place], where)

    def is_in(self, messages: Iterable[tuple[Any, ...]]) -> bool:
        """Whether one of these messages of one speaker is of this kind."""
        operation = self.operation
        for message in messages:  # noqa: SIM110 (a generator would cost as much as all the rest)
            if message[0] == operation:
                return True
        return False

    def fields_of(self, message: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The fields of a message, which is not checked; None if it is of another kind."""
        return message[1:] if message[0] == self.operation else None


class QuicklyChecked(Message):
    """A message that comes often. A function looks at it in less time than the shapes of its fields need.

    Parameters
    ----------
    operation, meaning, **fields
        As for `Message`.
    quick
        Says of most of these messages that they are right, and never of one that isn't (`quick`).
    """

    __slots__ = ("quick",)

    def __init__(
        self, operation: str, meaning: str, /, *, quick: Callable[[tuple[Any, ...]], bool], **fields: Shape
    ) -> None:
        super().__init__(operation, meaning, cut=None, unless=None, **fields)
        self.quick = quick

    def check(self, message: tuple[Any, ...]) -> None:
        """Raise a `ProtocolError` if a message of this operation has not these fields."""
        if not self.quick(message):
            super().check(message)


class Carrier(Message):
    """A message that carries one of another vocabulary: its operation, and then all of that one.

    Parameters
    ----------
    operation
        What it begins with.
    meaning
        What it says, for the docs, in full sentences.
    carried
        The vocabulary of what it carries.

    Examples
    --------
    >>> ECHO = Carrier("echo", "Comes back.", Vocabulary("a cave", "a hiker", Message("hello", "It greets.")))
    >>> ECHO("hello")
    ('echo', 'hello')
    """

    __slots__ = ("_operations", "carried")

    def __init__(self, operation: str, meaning: str, carried: Vocabulary) -> None:
        super().__init__(operation, meaning)
        self.carried = carried
        self._operations = frozenset(message.operation for message in carried)

    def __call__(self, *fields: Any) -> tuple[Any, ...]:
        """What carries the message of these fields, the operation first."""
        if not fields or fields[0] not in self._operations:
            raise TypeError(f"{self!r} carries what {self.carried.speaker} says, and not {fields[:1]!r}")
        return self._begin + fields

    def check(self, message: tuple[Any, ...]) -> None:
        """Raise a `ProtocolError` if what it carries is none of the vocabulary, or is malformed."""
        if len(message) < 2:
            raise ProtocolError(f"{self.operation}: a message expected, nothing found")
        if type(message[1]) is not str:
            raise ProtocolError(f"{self.operation}: the name of a message expected, {found(message[1])} found")
        try:
            self.carried.check(message[1:])
        except ProtocolError as error:
            raise ProtocolError(f"{self.operation}.{error}") from None


class Vocabulary:
    """What one kind of process may say to another.

    Parameters
    ----------
    speaker
        Says it: "a client".
    hearer
        Hears it: "the scheduler".
    *messages
        All that there are.
    """

    __slots__ = ("_messages", "hearer", "speaker")

    def __init__(self, speaker: str, hearer: str, *messages: Message) -> None:
        self.speaker = speaker
        self.hearer = hearer
        self._messages = {message.operation: message for message in messages}
        if len(self._messages) != len(messages):
            raise ValueError(f"{speaker} has two messages of one name")

    def __iter__(self) -> Iterator[Message]:
        return iter(self._messages.values())

    def check(self, message: tuple[Any, ...]) -> None:
        """Raise a `ProtocolError` if it is none of these messages, or is malformed; it names the field."""
        known = self._messages.get(message[0])
        if known is None:
            raise self.unknown(message)
        known.check(message)

    def unknown(self, message: tuple[Any, ...]) -> ProtocolError:
        """The error for a message that is none of these."""
        return ProtocolError(f"{self.speaker} sent an unknown message, {found(message[0])}")


class Dispatch(Generic[Result]):
    """Takes messages: checks each, and calls the handler of its kind with its fields.

    Parameters
    ----------
    vocabulary
        What may come.
    handlers
        The handler of each message.
    otherwise
        Is called with the whole message for kinds that have no handler. Without it each needs one.

    Raises
    ------
    ValueError
        A handler is missing, or is for a message that can't come.
    """

    __slots__ = ("_handlers", "_otherwise", "_vocabulary")

    def __init__(
        self,
        vocabulary: Vocabulary,
        handlers: Mapping[Message, Callable[..., Result]],
        otherwise: Callable[..., Result] | None = None,
    ) -> None:
        known = set(vocabulary)
        if strange := [message for message in handlers if message not in known]:
            raise ValueError(f"{vocabulary.speaker} doesn't send {strange}")
        if otherwise is None and (lacking := [message for message in vocabulary if message not in handlers]):
            raise ValueError(f"no handler for {lacking}, which {vocabulary.speaker} sends")
        self._vocabulary = vocabulary
        self._handlers = {message.operation: (message.check, handler) for message, handler in handlers.items()}
        self._otherwise = otherwise

    def __call__(self, message: tuple[Any, ...], *before: Any) -> Result:
        """Handle a message: ``handler(*before, *fields)``. Returns what the handler does.

        Raises
        ------
        ProtocolError
            The message is none of these, or is malformed. No handler was called.
        """
        entry = self._handlers.get(message[0])
        if entry is None:
            if self._otherwise is None:
                raise self._vocabulary.unknown(message)
            self._vocabulary.check(message)
            return self._otherwise(*before, message)
        check, handle = entry
        check(message)
        return handle(*before, *message[1:])


class Request:
    """One kind of request.

    Parameters
    ----------
    operation
        Its name.
    meaning
        What the scheduler does about it, for the docs, in full sentences.
    answer
        What the value of the reply is.
    needed, known
        The arguments that have to be there, and those that may, by name.
    waits
        Whether the answer may take until tasks have run or workers have come: a task that asks lends its slot
        meanwhile. The scheduler answers all other requests soon.
    quiet
        Whether it has no answer, unless the scheduler refuses it. Then the number names what it is about, and several
        may have the same.

    Examples
    --------
    >>> from holdfast.cluster.protocol.shapes import Integer, Nothing
    >>> WAIT = Request("wait", "Waits.", answer=Nothing(), needed={"seconds": Integer()}, waits=True)
    >>> WAIT(seconds=3)
    ('wait', {'seconds': 3})
    """

    __slots__ = ("_known", "_needed", "answer", "arguments", "meaning", "operation", "quiet", "waits")

    def __init__(
        self,
        operation: str,
        meaning: str,
        /,
        *,
        answer: Shape,
        needed: Mapping[str, Shape] | None = None,
        known: Mapping[str, Shape] | None = None,
        waits: bool = False,
        quiet: bool = False,
    ) -> None:
        self.operation = operation
        self.meaning = meaning
        self.arguments = Fields(needed or {}, known or {})
        self._needed, self._known = self.arguments.needed.keys(), self.arguments.known.keys()
        self.answer = answer
        self.waits = waits
        self.quiet = quiet

    def __repr__(self) -> str:
        return f"<request {self.operation!r}: {', '.join(self.arguments.known) or 'nothing'}>"

    def __call__(self, **arguments: Any) -> tuple[str, dict[str, Any]]:
        """The operation and the arguments, as they stand in the message. Raises a `TypeError` for wrong names."""
        names = arguments.keys()
        if not self._needed <= names <= self._known:
            if strange := names - self._known:
                raise TypeError(f"{self!r} has no argument {', '.join(sorted(strange))}")
            raise TypeError(f"{self!r} lacks {', '.join(sorted(self._needed - names))}")
        return self.operation, arguments


class RequestError(ProtocolError):
    """A request is none that there is, or its arguments are wrong. Only that request is refused."""


class Answering(Generic[Result]):
    """Takes requests: checks the arguments of each, and calls the handler of its kind with them by name.

    Parameters
    ----------
    requests
        What may come.
    handlers
        The handler of each.

    Raises
    ------
    ValueError
        A handler is missing, or is for a request that can't come.
    """

    __slots__ = ("_handlers",)

    def __init__(self, requests: Iterable[Request], handlers: Mapping[Request, Callable[..., Result]]) -> None:
        known = set(requests)
        if strange := handlers.keys() - known:
            raise ValueError(f"nobody asks {sorted(map(repr, strange))}")
        if lacking := known - handlers.keys():
            raise ValueError(f"no handler for {sorted(map(repr, lacking))}")
        self._handlers = {request.operation: (request.arguments, handler) for request, handler in handlers.items()}

    def __contains__(self, operation: object) -> bool:
        """Whether there is such a request."""
        return operation in self._handlers

    def __call__(self, operation: str, arguments: dict[str, Any], *before: Any) -> Result:
        """Handle a request: ``handler(*before, **arguments)``. Returns what the handler does.

        Raises
        ------
        RequestError
            There is no such request, or an argument is wrong, which the error names. No handler was called.
        """
        entry = self._handlers.get(operation)
        if entry is None:
            raise RequestError(f"there is no request {operation!r:.80}")
        shape, handle = entry
        try:
            shape.check(arguments, operation)
        except ProtocolError as error:
            raise RequestError(str(error)) from None
        return handle(*before, **arguments)
