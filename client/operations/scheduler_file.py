"""Writing the file by which others find the cluster of a client."""

from __future__ import annotations

import os

from holdfast.client.core.core import Core
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Elsewhere, Operation
from holdfast.cluster import protocol
from holdfast.cluster.deploy.scheduler_file import write_scheduler_file


def write(core: Core, path: str | os.PathLike[str]) -> Operation[None]:
    """See `Client.write_scheduler_file`."""
    identity = yield Ask(core.session, protocol.requests.INFO)
    yield Elsewhere(lambda: write_scheduler_file(path, identity))
