"""What clients ask the scheduler, by topic. `REQUESTS` has all requests, and each stands here by its name."""

from __future__ import annotations

from holdfast.cluster.protocol.requests import cluster, datasets, errands, locks, looking, records, scaling
from holdfast.cluster.protocol.requests.cluster import SHUTDOWN, WAIT_FOR_WORKERS
from holdfast.cluster.protocol.requests.datasets import GET_DATASET, LIST_DATASETS, PUBLISH, UNPUBLISH
from holdfast.cluster.protocol.requests.errands import ERRAND
from holdfast.cluster.protocol.requests.locks import ACQUIRE_LOCKS, IS_LOCKED, RELEASE_LOCKS
from holdfast.cluster.protocol.requests.looking import (
    HAS_WHAT,
    INFO,
    MEMORY,
    NTHREADS,
    PREFIX_STATES,
    PROCESSING,
    SIZES,
    STATUS,
    WHO_HAS,
)
from holdfast.cluster.protocol.requests.records import (
    GET_EVENTS,
    GET_METADATA,
    LOG_EVENT,
    SET_METADATA,
    SUBSCRIBE,
    UNSUBSCRIBE,
)
from holdfast.cluster.protocol.requests.scaling import ADAPTIVE_TARGET, ADD_WORKERS

REQUESTS = (
    *looking.REQUESTS,
    *datasets.REQUESTS,
    *cluster.REQUESTS,
    *scaling.REQUESTS,
    *errands.REQUESTS,
    *locks.REQUESTS,
    *records.REQUESTS,
)

__all__ = [
    "ACQUIRE_LOCKS",
    "ADAPTIVE_TARGET",
    "ADD_WORKERS",
    "ERRAND",
    "GET_DATASET",
    "GET_EVENTS",
    "GET_METADATA",
    "HAS_WHAT",
    "INFO",
    "IS_LOCKED",
    "LIST_DATASETS",
    "LOG_EVENT",
    "MEMORY",
    "NTHREADS",
    "PREFIX_STATES",
    "PROCESSING",
    "PUBLISH",
    "RELEASE_LOCKS",
    "REQUESTS",
    "SET_METADATA",
    "SHUTDOWN",
    "SIZES",
    "STATUS",
    "SUBSCRIBE",
    "UNPUBLISH",
    "UNSUBSCRIBE",
    "WAIT_FOR_WORKERS",
    "WHO_HAS",
]
