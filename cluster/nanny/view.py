"""What functions and plugins see of the host that they run on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

from holdfast.cluster.protocol.limits import MAX_ENVIRONMENT, MAX_ENVIRONMENT_NBYTES, MAX_NAME_LENGTH


class Environment(MutableMapping[str, str | None]):
    """Variables of the environment of the worker processes that start from now on; None takes one away.

    Parameters
    ----------
    changed
        ``changed(variables)`` is called with all of them when one has changed.
    """

    def __init__(self, changed: Callable[[dict[str, str | None]], None]) -> None:
        self._changed = changed
        self._lock = threading.Lock()
        self._variables: dict[str, str | None] = {}

    def __setitem__(self, name: str, value: str | None) -> None:
        """Set one.

        Raises
        ------
        ValueError
            No process could have it: it is too large, or has characters that there may not be.
        """
        value = None if value is None else str(value)
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_LENGTH or not _is_plain(name) or "=" in name:
            raise ValueError(f"no variable of the environment can have the name {name!r:.100}")
        if value is not None and not _is_plain(value):
            raise ValueError(f"no variable of the environment can have the value {value!r:.100}")
        with self._lock:
            variables = {**self._variables, name: value}
            nbytes = sum(len(text.encode()) for variable in variables.items() for text in variable if text is not None)
            if len(variables) > MAX_ENVIRONMENT or nbytes > MAX_ENVIRONMENT_NBYTES:
                raise ValueError(
                    f"{len(variables):,} variables of {nbytes:,} bytes are more than a nanny may set for its workers: "
                    f"{MAX_ENVIRONMENT:,} of {MAX_ENVIRONMENT_NBYTES:,} bytes"
                )
            self._variables = variables
            self._changed(variables)

    def __delitem__(self, name: str) -> None:
        """Leave one to what starts the workers."""
        with self._lock:
            variables = dict(self._variables)
            del variables[name]
            self._variables = variables
            self._changed(variables)

    def __getitem__(self, name: str) -> str | None:
        return self._variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def __repr__(self) -> str:
        return repr(self._variables)


class NannyView:
    """A host, as functions of ``Client.run(..., nanny=True)`` and node plugins see it.

    Attributes
    ----------
    address, scheduler_address : str
        Of the host's node, and of the scheduler: ``tcp://host:port``.
    name : str
        The host's.
    local_directory : str
        A directory of the host's, which is removed with it.
    env : MutableMapping
        Variables of the environment of the worker processes that start from now on; None takes one away.
    plugins : dict
        The node plugins that are there, by name.
    """

    def __init__(
        self,
        scheduler_address: str,
        address: str,
        name: str,
        *,
        local_directory: str,
        env: MutableMapping[str, str | None],
        client: Callable[[], Any],
    ) -> None:
        self.scheduler_address = scheduler_address
        self.address = address
        self.name = name
        self.local_directory = local_directory
        self.env = env
        self.plugins: dict[str, Any] = {}
        self._client = client

    @property
    def client(self) -> Any:
        """A client of the cluster, for all that is not here."""
        return self._client()

    def log_event(self, topic: Any, msg: Any) -> None:
        """Log an event: as `Client.log_event`."""
        self.client.log_event(topic, msg)

    def __repr__(self) -> str:
        return f"<Nanny of {self.name} at {self.address}>"

    def __reduce__(self) -> Any:
        raise TypeError("a nanny can't be pickled: its address names it anywhere")


def _is_plain(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
