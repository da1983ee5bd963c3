"""An innocent client at work on innocent hosts, whose every result is checked while somebody attacks the cluster."""

from __future__ import annotations

import itertools
import sys
import threading
import traceback
from collections import Counter
from types import TracebackType
from typing import Any, Self

import numpy as np

from holdfast import Client
from holdfast.cluster import protocol

RESULT_SECONDS = 20.0


def _double(x: Any) -> Any:
    return 2 * x


def _fail(number: int) -> None:
    raise ValueError(number)


class Innocents:
    """Use it as a context; what went wrong raises at its end.

    Parameters
    ----------
    cluster
        A `LocalCluster`. Only the workers that it has now are worked with: others may be the attacker's.
    counts
        Where checked operations are counted.
    """

    def __init__(self, cluster: Any, counts: Counter[str]) -> None:
        self._counts = counts
        self._client = Client(cluster, set_as_default=False)
        self._workers = list(self._client.nthreads())
        self._over = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="innocent", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(2 * RESULT_SECONDS)
        try:
            if kind is None:
                self._check_end()
        finally:
            self._client.close()

    @property
    def nodes(self) -> list[str]:
        """The addresses of the innocent hosts."""
        return list({worker.rpartition("/")[0]: None for worker in self._workers})

    @property
    def failed(self) -> bool:
        """Whether something has gone wrong already."""
        return self._error is not None

    def _check_end(self) -> None:
        if self._error is not None:
            raise self._error
        if self._thread.is_alive():
            frame = sys._current_frames().get(self._thread.ident or 0)
            where = "".join(traceback.format_stack(frame)[-6:])
            raise AssertionError(
                f"an innocent operation hangs:\n{where}\n{self._client._core.session.ask(protocol.requests.STATUS, 30)}"
            )
        assert set(self._workers) <= set(self._client.nthreads()), "an innocent worker is gone"
        assert self._client.scheduler_info()["failures"] == 0, "the scheduler failed at something; see its log"

    def _work(self) -> None:
        try:
            held = self._client.submit(np.arange, 100_000, workers=self._workers, pure=False)
            for number in itertools.count():
                if self._over.is_set():
                    break
                self._once(number, held)
        except BaseException as error:
            self._error = error

    def _once(self, number: int, held: Any) -> None:
        client, workers = self._client, self._workers
        futures = client.map(_double, range(number, number + 20), workers=workers, pure=False)
        assert client.gather(futures) == [2 * x for x in range(number, number + 20)]
        again = client.submit(_double, futures[3], workers=workers, pure=False)
        assert again.result(RESULT_SECONDS) == 4 * (number + 3)
        large = client.submit(_double, held, workers=workers, pure=False).result(RESULT_SECONDS)
        assert large[-1] == 2 * 99_999
        error = client.submit(_fail, number, workers=workers, pure=False).exception(RESULT_SECONDS)
        assert isinstance(error, ValueError)
        assert error.args == (number,)
        assert set(client.who_has(futures)) == {future.key for future in futures}
        self._counts["innocent operations checked"] += 24
