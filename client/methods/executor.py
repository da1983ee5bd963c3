"""A client as an executor of `concurrent.futures`: `Client.get_executor`."""

from __future__ import annotations

from typing import Any

from holdfast.client.futures.executor import ClientExecutor
from holdfast.client.methods.face import Face
from holdfast.client.operations.submit import map_calls, submit
from holdfast.client.packing.checks import warn_without_effect
from holdfast.client.packing.options import options_of

_OPTIONS = ("allow_other_workers", "priority", "resources", "retries", "run_timeout", "workers", "writable")


class ExecutorMethods(Face):
    """The methods of a client that give an executor."""

    def get_executor(self, **kwargs: Any) -> ClientExecutor:
        """An executor of `concurrent.futures` that runs calls on the cluster.

        Its futures are those of `concurrent.futures`, and work with its ``wait`` and ``as_completed``.
        ``cancel()`` cancels what no worker has yet; ``running()`` says whether one has it. Each call is computed anew,
        and is so too if nobody keeps its future. The client stays open when the executor is shut down.

        Parameters
        ----------
        **kwargs
            As for `submit`, for all calls: ``workers``, ``allow_other_workers``, ``resources``, ``retries``,
            ``priority``, ``run_timeout``, ``writable``; and ``pure=True``, if calls that are the same may be one
            computation.

        Raises
        ------
        TypeError
            A keyword is none of these.

        Examples
        --------
        >>> from concurrent.futures import as_completed
        >>> with client.get_executor(retries=2) as executor:
        ...     futures = [executor.submit(pow, n, 2) for n in range(4)]
        ...     sorted(future.result() for future in as_completed(futures))
        [0, 1, 4, 9]
        """
        core = self._core
        pure = bool(kwargs.pop("pure", False))
        fifo_timeout = kwargs.pop("fifo_timeout", None)
        if fifo_timeout is not None:
            warn_without_effect("fifo_timeout", fifo_timeout)
        if unknown := kwargs.keys() - set(_OPTIONS):
            raise TypeError(f"get_executor takes {', '.join(_OPTIONS)} and pure, not {', '.join(sorted(unknown))}")
        given: dict[str, Any] = {"key": None, "pure": pure, "options": options_of(**kwargs)}
        return ClientExecutor(
            core,
            lambda function, args, keywords: submit(core, function, args, keywords, **given),
            lambda function, iterables: map_calls(core, function, iterables, {}, batch_size=None, **given),
        )
