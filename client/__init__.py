"""What a user holds: `Client`, `Future` and the functions that go with them."""

import importlib
import threading


def _import_dask() -> None:
    """Import what of dask is used here in a thread of its own.

    A module may keep an exception that it has caught while it was imported, as `dask.widgets` does without jinja2. Its
    traceback holds every frame below, and in a worker these are the frames of the task that comes by here first, with
    its arguments and its result.
    """
    modules = ("dask._expr", "dask.delayed", "dask.order")
    thread = threading.Thread(target=lambda: [importlib.import_module(name) for name in modules])
    thread.start()
    thread.join()


_import_dask()

from holdfast.client.client import Client, get_client  # noqa: E402
from holdfast.client.core.registry import registry  # noqa: E402
from holdfast.client.futures.collections import futures_of  # noqa: E402
from holdfast.client.futures.future import Future  # noqa: E402
from holdfast.client.futures.waiting import wait  # noqa: E402
from holdfast.client.in_task import place  # noqa: E402

registry.task_place = place

__all__ = ["Client", "Future", "futures_of", "get_client", "wait"]
