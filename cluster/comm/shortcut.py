"""The shortcut between processes of one host: a Unix socket beside each TCP socket that is listened to.

A message through it takes less of the processors than one through the loopback interface. No peer has to know of it:
its name says which TCP address it stands for, and it lies in the abstract namespace, which leaves no file behind and is
one for each network namespace, just as TCP addresses are. A process that connects to an address of its own host looks
for the shortcut first, and takes TCP where there is none.

Any process of the host may listen under any such name. So a shortcut counts only if the process that listens is of the
same user as the one that connects, or root's: what is written to it is no more exposed than by TCP, where a port that
is listened to can't be taken.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct

_ANY = ("0.0.0.0", "::")
_UCRED = struct.Struct("3i")  # the process, its user, its group
_BACKLOG = 1024


def listening(host: str, port: int) -> socket.socket | None:
    """A socket for the processes of this host that connect to the address, or None if there can't be one."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(_name("*" if host in _ANY else host, port))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        return None
    return sock


def connected(host: str, port: int) -> socket.socket | None:
    """A socket that is connected to the process that listens to the address on this host, or None.

    Parameters
    ----------
    host
        An IP address.
    """
    if not _is_ours(host):
        return None
    for name in (host, "*"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.suppress(OSError):
            sock.setblocking(False)
            sock.connect(_name(name, port))
            if _is_trusted(sock):
                return sock
        sock.close()
    return None


def _name(host: str, port: int) -> str:
    return f"\0holdfast/{host}/{port}"


def _is_ours(host: str) -> bool:
    """Whether it is an address of this host."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def _is_trusted(sock: socket.socket) -> bool:
    """Whether the process at the other end is this user's or root's."""
    _, user, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return user in (os.geteuid(), 0)
