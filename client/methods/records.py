"""What users leave with the scheduler: metadata by keys, and events by topic."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from holdfast.client.methods.face import Face
from holdfast.client.operations import records
from holdfast.client.operations.datasets import NO_DEFAULT


class RecordMethods(Face):
    """The methods of a client about metadata and events."""

    def set_metadata(self, key: Any, value: Any) -> Any:
        """Keep a small value in the scheduler, for all clients and tasks. In an asynchronous client: await it.

        Parameters
        ----------
        key : str, number or list of these
            Where: a list is a path into dictionaries inside of each other. They are made as they are needed, in the
            place of another value that lies on the path.
        value : object
            Takes the place of what was there. A dictionary can be got as a whole, or by further keys. Anything else is
            kept as it is, pickled if need be: up to 1 MiB, and 64 MiB and 20,000 values in the whole cluster.

        Raises
        ------
        ValueError
            The value is too large, or there is too much metadata.

        Examples
        --------
        >>> client.set_metadata(["experiment", "rate"], 0.1)
        >>> client.set_metadata(["experiment", "name"], "first")
        >>> client.get_metadata("experiment")
        {'rate': 0.1, 'name': 'first'}
        """
        return self._run(records.set_metadata(self._core, key, value))

    def get_metadata(self, keys: Any, default: Any = NO_DEFAULT) -> Any:
        """What was kept with `set_metadata`. In an asynchronous client: await it.

        Parameters
        ----------
        keys : str, number or list of these
            A list is a path into dictionaries inside of each other.
        default : object, optional
            What is given if there is nothing.

        Raises
        ------
        KeyError
            There is nothing, and no default.

        Examples
        --------
        >>> client.set_metadata("x", {"y": [1, 2]})
        >>> client.get_metadata(["x", "y"])
        [1, 2]
        >>> client.get_metadata("unknown", default=None)
        """
        return self._run(records.get_metadata(self._core, keys, default))

    def log_event(self, topic: str | Iterable[str], msg: Any) -> Any:
        """Log an event: all clients can get it, and those that are subscribed are told. Asynchronous client: await it.

        A task logs an event with this method too, or with `Worker.log_event`. The scheduler itself logs to the topic
        ``"all"``, and to topics with the ids of clients and the addresses of hosts and workers, when these come and go.

        Parameters
        ----------
        topic : str or list of str
            Names of topics, which need not have been used before.
        msg : object
            Up to 1 MiB.

        Raises
        ------
        ValueError
            The message is too large.

        Examples
        --------
        >>> client.log_event("training", {"step": 1, "loss": 0.5})
        >>> client.get_events("training")
        ((..., {'step': 1, 'loss': 0.5}),)
        """
        return self._run(records.log_event(self._core, topic, msg))

    def get_events(self, topic: str | None = None) -> Any:
        """The events that are kept. In an asynchronous client: await it.

        Each topic keeps its last 100,000 events (``HOLDFAST_EVENTS_LOG_LENGTH`` where the scheduler is started), and
        all topics together 64 MiB.

        Parameters
        ----------
        topic : str, optional
            Default: all topics.

        Returns
        -------
        tuple of (float, object)
            Of the topic, the oldest event first: when it was logged, in seconds since 1970, and the message. Without a
            topic a dictionary of these, by topic.

        Examples
        --------
        >>> client.log_event(["a", "b"], "hello")
        >>> [message for time, message in client.get_events("b")]
        ['hello']
        """
        return self._run(records.get_events(self._core, topic))

    def subscribe_topic(
        self,
        topic: str,
        handler: Callable[[tuple[float, Any]], Any],
        on_missed: Callable[[int], Any] | None = None,
    ) -> Any:
        """Have a function called with each event of a topic from now on. In an asynchronous client: await it.

        The events come in order, one at a time: in the thread of a blocking client that also calls the callbacks of
        futures, or on the loop of an asynchronous one. There the function may be a coroutine function, and the next
        event waits for it. An event that comes while a handler is busy waits at the scheduler.

        Parameters
        ----------
        topic : str
        handler : callable
            Called with ``(time, message)``, as in `get_events`. What it raises is logged, but no more often than every
            10 seconds: then with how often it has failed. A client has one handler for each topic: another one takes
            its place.
        on_missed : callable, optional
            Called with the number of events that were missed, because more came than the scheduler keeps. Default: a
            warning.

        Examples
        --------
        >>> import threading
        >>> done = threading.Event()
        >>> client.subscribe_topic("progress", lambda event: done.set())
        >>> client.log_event("progress", 100)
        >>> done.wait(10)
        True
        """
        return self._run(records.subscribe(self._core, topic, handler, on_missed))

    def unsubscribe_topic(self, topic: str) -> Any:
        """Have the handler of a topic called no longer. In an asynchronous client: await it.

        Parameters
        ----------
        topic : str

        Raises
        ------
        ValueError
            This client is not subscribed to it.

        Examples
        --------
        >>> client.subscribe_topic("progress", print)
        >>> client.unsubscribe_topic("progress")
        """
        return self._run(records.unsubscribe(self._core, topic))
