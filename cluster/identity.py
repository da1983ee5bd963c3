"""Whose process this is, and where: what people are told of a client or a worker besides its name."""

from __future__ import annotations

import getpass
import os
import socket
from typing import Any


def own_identity() -> dict[str, Any]:
    """The user, the host and the number of this process.

    Examples
    --------
    >>> sorted(own_identity())
    ['hostname', 'pid', 'user']
    """
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # there is no name for it
        user = str(os.getuid())
    return {"pid": os.getpid(), "hostname": socket.gethostname(), "user": user}
