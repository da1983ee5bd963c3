"""What the machine itself can do: bytes of a memfd from one process into another's memory, over TCP's loopback.

``python -m benchmarks.transfer_floor PORT BYTES ROUNDS`` is the side that sends.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

_ACCEPT_SECONDS = 60.0


def measure(nbytes: int, rounds: int) -> list[float]:
    """GB/s of each round."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(_ACCEPT_SECONDS)
        numbers = map(str, (listening.getsockname()[1], nbytes, rounds))
        command = [sys.executable, "-m", "benchmarks.transfer_floor", *numbers]
        with subprocess.Popen(command, cwd=Path(__file__).resolve().parent.parent):
            sock, _ = listening.accept()
            with sock:
                room = bytearray(nbytes)
                return [nbytes / _receive(sock, memoryview(room)) / 1e9 for _ in range(rounds)]


def _receive(sock: socket.socket, room: memoryview) -> float:
    began = time.perf_counter()
    sock.sendall(b"\1")
    while room:
        received = sock.recv_into(room)
        if not received:
            raise ConnectionResetError("the sender has ended")
        room = room[received:]
    return time.perf_counter() - began


def main() -> int:
    port, nbytes, rounds = map(int, sys.argv[1:])
    fd = os.memfd_create("bench-transfer")
    block = b"\1" * (1 << 20)
    for start in range(0, nbytes, len(block)):
        os.pwrite(fd, block[: nbytes - start], start)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        for _ in range(rounds):
            sock.recv(1)
            at = 0
            while at < nbytes:
                at += os.sendfile(sock.fileno(), fd, at, nbytes - at)
    return 0


if __name__ == "__main__":
    sys.exit(main())
