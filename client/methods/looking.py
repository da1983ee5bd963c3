"""What lies in a cluster, and why tasks are in their states."""

from __future__ import annotations

from typing import Any

from holdfast.client.methods.face import Face
from holdfast.client.operations import looking


class LookingMethods(Face):
    """The methods of a client that explain what there is."""

    def memory(self) -> Any:
        """What lies in the object stores, and what holds it. In an asynchronous client: await it.

        Returns
        -------
        MemoryReport
            Shows itself as a table; has the objects, and groups of them by prefix, owner, client and dataset, as
            attributes. ``holdfast memory`` shows the same.

        Examples
        --------
        >>> import numpy as np
        >>> future = client.scatter(np.zeros(1_000_000), hash=False)
        >>> report = client.memory()
        >>> report.nbytes > 8_000_000
        True
        >>> [o["owner"] for o in report.objects if o["key"] == future.key] == [client.name or client.id]
        True
        """
        return self._run(looking.memory(self._core))

    def explain(self, future: Any) -> Any:
        """Why a future is in its state. In an asynchronous client: await it.

        Parameters
        ----------
        future : Future or key

        Returns
        -------
        Explanation
            Shows itself in sentences: what the task waits for and why it has no worker, or how large its result is and
            in which stores that lies, in memory or on disk, who looks at it there, and what keeps it alive. All of it
            is in the attributes too.

        Examples
        --------
        >>> import operator
        >>> future = client.submit(operator.truediv, 1, 0)
        >>> _ = future.exception()
        >>> client.explain(future)
        <Explanation: truediv-... erred>
          It failed: ZeroDivisionError: division by zero
          It is kept by the client ...
          It was brought by ...
        """
        return self._run(looking.explain(self._core, future))
