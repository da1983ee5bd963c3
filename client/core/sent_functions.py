"""Which functions the scheduler has from this client."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterable

from holdfast.client.core.session import Session
from holdfast.client.packing.functions import Function
from holdfast.cluster import protocol
from holdfast.cluster.comm.frames import raw

#: The scheduler keeps about so many functions for each client that has no tasks of them.
MAX_SENT_FUNCTIONS = 10_000
#: A larger function is not kept for later calls: it has data in it.
MAX_KEPT_FUNCTION_NBYTES = 8 * 1024


class SentFunctions:
    """Sends functions with the tasks that name them, each once. The caller has the table's lock."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.digests: OrderedDict[bytes, None] = OrderedDict()  # the least recently named first

    def send(self, functions: Iterable[Function]) -> None:
        """Post functions that the scheduler does not have from this client yet."""
        sent = self.digests
        functions = tuple(functions)
        if len(functions) == 1 and functions[0].digest in sent:  # as for most calls
            sent.move_to_end(functions[0].digest)
            return
        named = {function.digest: function for function in functions}
        if len(sent) > MAX_SENT_FUNCTIONS:
            surplus = [digest for digest in itertools.islice(sent, MAX_SENT_FUNCTIONS // 2) if digest not in named]
            for digest in surplus:
                del sent[digest]
            self._session.post(protocol.client.FUNCTIONS_FORGOTTEN(surplus))
        new = [function for digest, function in named.items() if sent.pop(digest, self) is not None]
        if new:
            sent_now = [(function.digest, raw(function.blob)) for function in new]
            self._session.post(protocol.client.FUNCTIONS_SENT(sent_now))
        sent.update(dict.fromkeys(named))  # last: one that is interrupted before is sent twice, which does no harm

    def forget(self, functions: Iterable[Function]) -> None:
        """After the last message that names them: forget those that are not to outlive their tasks.

        One with futures in it would keep their results, a large one its data.
        """
        forgotten = [
            function.digest
            for function in functions
            if function.dependencies or len(function.blob) > MAX_KEPT_FUNCTION_NBYTES
        ]
        if forgotten:
            for digest in forgotten:
                self.digests.pop(digest, None)
            self._session.post(protocol.client.FUNCTIONS_FORGOTTEN(forgotten))
