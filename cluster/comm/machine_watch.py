"""Whether the machine at the other end of a TCP connection is still there, however long its processes are silent.

A process that is stopped reads nothing, but its machine's kernel goes on to acknowledge what it receives: data, as long
as there is room for it, and after that the probes that ask for room. A machine that is gone, or can't be reached,
acknowledges nothing. The kernel's own limit, TCP_USER_TIMEOUT, makes no difference between the two: room that doesn't
come counts like an acknowledgement that doesn't. So that limit is set so high that it doesn't matter, and
`MachineWatch` looks from time to time when the last acknowledgement came.

It counts looks, not seconds. After a stop of this process, or of this whole machine, one look finds that nothing has
come for long; but those that follow find what has come since.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

#: How often it is looked whether a machine acknowledges.
LOOK_SECONDS = 10.0
#: A machine that has acknowledged nothing in so many looks is given up.
MAX_SILENT_LOOKS = 12
#: A connection on which nothing is said asks the other machine for an acknowledgement this often.
PROBE_SECONDS = 10
#: What isn't acknowledged is sent again at least this often, where the kernel can be told (Linux 6.15), so that a link
#: that was cut is soon found to be there again. By itself the kernel waits each time as long as it has waited already.
RESEND_SECONDS = 1.0

_KERNEL_LIMIT_SECONDS = 24 * 3600
_TCP_RTO_MAX_MS = 44
_INFO = struct.Struct("8B13I")
_PROBES, _UNACKNOWLEDGED, _LAST_ACKNOWLEDGED_MS = 3, 8 + 4, 8 + 12


class MachineWatch:
    """Watches the other end of a connection from an event loop.

    Parameters
    ----------
    loop
        In whose thread this is used.
    sock
        A TCP socket that is connected.
    on_silence
        Called with the number of seconds when the machine has acknowledged nothing for so long.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, on_silence: Callable[[float], None]
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._on_silence = on_silence
        self._silent_looks = 0
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_SECONDS)
        # With this limit the kernel counts neither probes nor times that it has sent something again.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _KERNEL_LIMIT_SECONDS * 1000)
        with contextlib.suppress(OSError):  # an older kernel
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_RTO_MAX_MS, int(RESEND_SECONDS * 1000))
        self._timer = loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        try:
            info = _INFO.unpack(self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size))
        except OSError:  # it has ended, and the code that reads from it learns that
            return
        owes = info[_UNACKNOWLEDGED] or info[_PROBES]
        if owes and info[_LAST_ACKNOWLEDGED_MS] >= LOOK_SECONDS * 900:
            self._silent_looks += 1
            if self._silent_looks >= MAX_SILENT_LOOKS:
                self._on_silence(self._silent_looks * LOOK_SECONDS)
                return
        else:
            self._silent_looks = 0
        self._timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def cancel(self) -> None:
        """Watch no more."""
        self._timer.cancel()
