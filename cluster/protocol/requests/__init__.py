"""What clients ask the scheduler, by topic. `REQUESTS` has all requests, and each stands here by its name."""

from __future__ import annotations

from holdfast.cluster.protocol.requests import (
    cancelling,
    cluster,
    datasets,
    errands,
    events,
    locks,
    looking,
    moving,
    plugins,
    queues,
    records,
    scaling,
    semaphores,
    variables,
    workers,
)
from holdfast.cluster.protocol.requests.cancelling import AWAIT_KILLS
from holdfast.cluster.protocol.requests.cluster import SHUTDOWN, WAIT_FOR_WORKERS
from holdfast.cluster.protocol.requests.datasets import GET_DATASET, LIST_DATASETS, PUBLISH, UNPUBLISH
from holdfast.cluster.protocol.requests.errands import ERRAND
from holdfast.cluster.protocol.requests.events import CLEAR_EVENT, IS_EVENT_SET, SET_EVENT, STOP_WAITING, WAIT_FOR_EVENT
from holdfast.cluster.protocol.requests.locks import ACQUIRE_LOCKS, IS_LOCKED, RELEASE_LOCKS
from holdfast.cluster.protocol.requests.looking import (
    EXPLAIN,
    HAS_WHAT,
    INFO,
    MEMORY,
    NTHREADS,
    PREFIX_STATES,
    PROCESSING,
    SCHEDULER_LOGS,
    SCHEDULER_PROFILE,
    SIZES,
    STATUS,
    VERSIONS,
    WHO_HAS,
)
from holdfast.cluster.protocol.requests.moving import REBALANCE, REPLICATE
from holdfast.cluster.protocol.requests.plugins import REGISTER_PLUGIN, UNREGISTER_PLUGIN
from holdfast.cluster.protocol.requests.queues import (
    CLOSE_QUEUE,
    CONFIRM_ITEMS,
    GET,
    GIVE_UP_ITEMS,
    OPEN_QUEUE,
    PUT,
    PUT_QUIETLY,
    QUEUE_SIZE,
)
from holdfast.cluster.protocol.requests.records import (
    GET_EVENTS,
    GET_METADATA,
    LOG_EVENT,
    SET_METADATA,
    SUBSCRIBE,
    UNSUBSCRIBE,
)
from holdfast.cluster.protocol.requests.scaling import ADAPTIVE_TARGET, ADD_WORKERS, REMOVE_WORKERS
from holdfast.cluster.protocol.requests.semaphores import (
    ACQUIRE_SEMAPHORE,
    CLOSE_SEMAPHORE,
    OPEN_SEMAPHORE,
    RELEASE_SEMAPHORE,
    SEMAPHORE_VALUE,
)
from holdfast.cluster.protocol.requests.variables import DELETE_VARIABLE, END_READING, GET_VARIABLE, SET_VARIABLE
from holdfast.cluster.protocol.requests.workers import RESTART, RESTART_WORKERS, RETIRE_WORKERS, WORKERS_TO_CLOSE

REQUESTS = (
    *looking.REQUESTS,
    *datasets.REQUESTS,
    *cluster.REQUESTS,
    *scaling.REQUESTS,
    *errands.REQUESTS,
    *plugins.REQUESTS,
    *locks.REQUESTS,
    *records.REQUESTS,
    *semaphores.REQUESTS,
    *events.REQUESTS,
    *queues.REQUESTS,
    *variables.REQUESTS,
    *workers.REQUESTS,
    *moving.REQUESTS,
    *cancelling.REQUESTS,
)

__all__ = [
    "ACQUIRE_LOCKS",
    "ACQUIRE_SEMAPHORE",
    "ADAPTIVE_TARGET",
    "ADD_WORKERS",
    "AWAIT_KILLS",
    "CLEAR_EVENT",
    "CLOSE_QUEUE",
    "CLOSE_SEMAPHORE",
    "CONFIRM_ITEMS",
    "DELETE_VARIABLE",
    "END_READING",
    "ERRAND",
    "EXPLAIN",
    "GET",
    "GET_DATASET",
    "GET_EVENTS",
    "GET_METADATA",
    "GET_VARIABLE",
    "GIVE_UP_ITEMS",
    "HAS_WHAT",
    "INFO",
    "IS_EVENT_SET",
    "IS_LOCKED",
    "LIST_DATASETS",
    "LOG_EVENT",
    "MEMORY",
    "NTHREADS",
    "OPEN_QUEUE",
    "OPEN_SEMAPHORE",
    "PREFIX_STATES",
    "PROCESSING",
    "PUBLISH",
    "PUT",
    "PUT_QUIETLY",
    "QUEUE_SIZE",
    "REBALANCE",
    "REGISTER_PLUGIN",
    "RELEASE_LOCKS",
    "RELEASE_SEMAPHORE",
    "REMOVE_WORKERS",
    "REPLICATE",
    "REQUESTS",
    "RESTART",
    "RESTART_WORKERS",
    "RETIRE_WORKERS",
    "SCHEDULER_LOGS",
    "SCHEDULER_PROFILE",
    "SEMAPHORE_VALUE",
    "SET_EVENT",
    "SET_METADATA",
    "SET_VARIABLE",
    "SHUTDOWN",
    "SIZES",
    "STATUS",
    "STOP_WAITING",
    "SUBSCRIBE",
    "UNPUBLISH",
    "UNREGISTER_PLUGIN",
    "UNSUBSCRIBE",
    "VERSIONS",
    "WAIT_FOR_EVENT",
    "WAIT_FOR_WORKERS",
    "WHO_HAS",
    "WORKERS_TO_CLOSE",
]
