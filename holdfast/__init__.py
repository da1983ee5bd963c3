"""Holdfast: a shared-object-store cluster for Python with dask's client API.

Names are imported when they are first used, so that a process that needs only one part of
Holdfast (an object store, a scheduler) does not pay for the others.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if sys.platform != "linux":
    raise ImportError(
        f"Holdfast runs on Linux only (this is {sys.platform}): its object store is built on "
        "memfd and on passing file descriptors over Unix sockets"
    )

from holdfast.cluster.instead import INSTEAD
from holdfast.objectstore.lazy import lazy

__version__ = "0.1.0"

_EXPORTS = {
    "Actor": "holdfast.client",
    "ActorFuture": "holdfast.client",
    "Client": "holdfast.client",
    "Executor": "holdfast.client",
    "Future": "holdfast.client",
    "Lock": "holdfast.client",
    "Semaphore": "holdfast.client",
    "Variable": "holdfast.client",
    "Queue": "holdfast.client",
    "RLock": "holdfast.client",
    "MultiLock": "holdfast.client",
    "Event": "holdfast.client",
    "as_completed": "holdfast.client",
    "default_client": "holdfast.client",
    "fire_and_forget": "holdfast.client",
    "futures_of": "holdfast.client",
    "get_client": "holdfast.client",
    "get_worker": "holdfast.client",
    "progress": "holdfast.client",
    "rejoin": "holdfast.client",
    "secede": "holdfast.client",
    "get_task_stream": "holdfast.client",
    "wait": "holdfast.client",
    "worker_client": "holdfast.client",
    "Adaptive": "holdfast.cluster.deploy",
    "Cluster": "holdfast.cluster.deploy",
    "LocalCluster": "holdfast.cluster.deploy",
    "ActorLostError": "holdfast.cluster.errors",
    "Nanny": "holdfast.cluster.deploy",
    "ProcessInterface": "holdfast.cluster.deploy",
    "Scheduler": "holdfast.cluster.deploy",
    "SpecCluster": "holdfast.cluster.deploy",
    "Status": "holdfast.cluster.deploy",
    "Worker": "holdfast.cluster.deploy",
    "AuthenticationError": "holdfast.cluster.errors",
    "BlockedTasksError": "holdfast.cluster.errors",
    "CancelledError": "holdfast.cluster.errors",
    "ConnectError": "holdfast.cluster.errors",
    "DatasetExistsError": "holdfast.cluster.errors",
    "DatasetNotFoundError": "holdfast.cluster.errors",
    "KilledWorker": "holdfast.cluster.errors",
    "NoWorkerError": "holdfast.cluster.errors",
    "NotCopiedError": "holdfast.cluster.errors",
    "ObjectLostError": "holdfast.cluster.errors",
    "RemoteError": "holdfast.cluster.errors",
    "Reschedule": "holdfast.cluster.errors",
    "TimeoutError": "builtins",
    "VersionMismatchError": "holdfast.cluster.errors",
    "Environ": "holdfast.cluster.plugins.environment",
    "PackageInstall": "holdfast.cluster.plugins.packages",
    "PipInstall": "holdfast.cluster.plugins.packages",
    "UploadDirectory": "holdfast.cluster.plugins.files",
    "UploadFile": "holdfast.cluster.plugins.files",
    "NannyPlugin": "holdfast.cluster.plugins.base",
    "SchedulerPlugin": "holdfast.cluster.plugins.base",
    "WorkerPlugin": "holdfast.cluster.plugins.base",
    "DurableError": "holdfast.objectstore.errors",
    "HoldfastError": "holdfast.objectstore.errors",
    "ObjectNotFoundError": "holdfast.objectstore.errors",
    "StoreError": "holdfast.objectstore.errors",
    "StoreFullError": "holdfast.objectstore.errors",
    "UnreadableError": "holdfast.objectstore.errors",
}

__all__ = [
    "Actor",
    "ActorFuture",
    "ActorLostError",
    "Adaptive",
    "AuthenticationError",
    "BlockedTasksError",
    "CancelledError",
    "Client",
    "Cluster",
    "ConnectError",
    "DatasetExistsError",
    "DatasetNotFoundError",
    "DurableError",
    "Environ",
    "Event",
    "Executor",
    "Future",
    "HoldfastError",
    "KilledWorker",
    "LocalCluster",
    "Lock",
    "MultiLock",
    "Nanny",
    "NannyPlugin",
    "NoWorkerError",
    "NotCopiedError",
    "ObjectLostError",
    "ObjectNotFoundError",
    "PackageInstall",
    "PipInstall",
    "ProcessInterface",
    "Queue",
    "RLock",
    "RemoteError",
    "Reschedule",
    "Scheduler",
    "SchedulerPlugin",
    "Semaphore",
    "SpecCluster",
    "Status",
    "StoreError",
    "StoreFullError",
    "TimeoutError",
    "UnreadableError",
    "UploadDirectory",
    "UploadFile",
    "Variable",
    "VersionMismatchError",
    "Worker",
    "WorkerPlugin",
    "__version__",
    "as_completed",
    "default_client",
    "fire_and_forget",
    "futures_of",
    "get_client",
    "get_task_stream",
    "get_worker",
    "progress",
    "rejoin",
    "secede",
    "wait",
    "worker_client",
]

if TYPE_CHECKING:
    from holdfast.client import (
        Actor,
        ActorFuture,
        Client,
        Event,
        Executor,
        Future,
        Lock,
        MultiLock,
        Queue,
        RLock,
        Semaphore,
        Variable,
        as_completed,
        default_client,
        fire_and_forget,
        futures_of,
        get_client,
        get_task_stream,
        get_worker,
        progress,
        rejoin,
        secede,
        wait,
        worker_client,
    )
    from holdfast.cluster.deploy import (
        Adaptive,
        Cluster,
        LocalCluster,
        Nanny,
        ProcessInterface,
        Scheduler,
        SpecCluster,
        Status,
        Worker,
    )
    from holdfast.cluster.errors import (
        ActorLostError,
        AuthenticationError,
        BlockedTasksError,
        CancelledError,
        ConnectError,
        DatasetExistsError,
        DatasetNotFoundError,
        KilledWorker,
        NotCopiedError,
        NoWorkerError,
        ObjectLostError,
        RemoteError,
        Reschedule,
        VersionMismatchError,
    )
    from holdfast.cluster.plugins.base import NannyPlugin, SchedulerPlugin, WorkerPlugin
    from holdfast.cluster.plugins.environment import Environ
    from holdfast.cluster.plugins.files import UploadDirectory, UploadFile
    from holdfast.cluster.plugins.packages import PackageInstall, PipInstall
    from holdfast.objectstore.errors import (
        DurableError,
        HoldfastError,
        ObjectNotFoundError,
        StoreError,
        StoreFullError,
        UnreadableError,
    )


__getattr__, __dir__ = lazy(globals(), _EXPORTS, INSTEAD["holdfast"])
