"""The plugins that come with Holdfast, and the base classes of those that users write."""

from holdfast.cluster.plugins.base import NannyPlugin, SchedulerPlugin, WorkerPlugin
from holdfast.cluster.plugins.environment import Environ
from holdfast.cluster.plugins.files import UploadDirectory, UploadFile
from holdfast.cluster.plugins.packages import PackageInstall, PipInstall

__all__ = [
    "Environ",
    "NannyPlugin",
    "PackageInstall",
    "PipInstall",
    "SchedulerPlugin",
    "UploadDirectory",
    "UploadFile",
    "WorkerPlugin",
]
