"""What clients ask the scheduler, by topic. `REQUESTS` has all requests, and each stands here by its name."""

from __future__ import annotations

from holdfast.cluster.protocol.requests import cluster, datasets, errands, locks, looking, scaling
from holdfast.cluster.protocol.requests.cluster import SHUTDOWN, WAIT_FOR_WORKERS
from holdfast.cluster.protocol.requests.datasets import GET_DATASET, LIST_DATASETS, PUBLISH, UNPUBLISH
from holdfast.cluster.protocol.requests.errands import ERRAND
from holdfast.cluster.protocol.requests.locks import ACQUIRE_LOCKS, IS_LOCKED, RELEASE_LOCKS
from holdfast.cluster.protocol.requests.looking import HAS_WHAT, INFO, MEMORY, NTHREADS, STATUS, WHO_HAS
from holdfast.cluster.protocol.requests.scaling import ADAPTIVE_TARGET, ADD_WORKERS

REQUESTS = (
    *looking.REQUESTS,
    *datasets.REQUESTS,
    *cluster.REQUESTS,
    *scaling.REQUESTS,
    *errands.REQUESTS,
    *locks.REQUESTS,
)

__all__ = [
    "ACQUIRE_LOCKS",
    "ADAPTIVE_TARGET",
    "ADD_WORKERS",
    "ERRAND",
    "GET_DATASET",
    "HAS_WHAT",
    "INFO",
    "IS_LOCKED",
    "LIST_DATASETS",
    "MEMORY",
    "NTHREADS",
    "PUBLISH",
    "RELEASE_LOCKS",
    "REQUESTS",
    "SHUTDOWN",
    "STATUS",
    "UNPUBLISH",
    "WAIT_FOR_WORKERS",
    "WHO_HAS",
]
