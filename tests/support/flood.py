"""Connections that say nothing, from a process of its own: ``python flood.py HOST PORT COUNT SOURCE``.

Each that is closed is made again, until standard input ends. Then the process says how many it has made.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

from holdfast.cluster.comm.addresses import parse_address


@contextlib.contextmanager
def flood(address: str, count: int, source: str = "127.0.0.1") -> Iterator[Callable[[], int]]:
    """Within it, ``count`` silent connections are open or being made. Gives what ends it and says how many it made."""
    host, port = parse_address(address)
    process = subprocess.Popen(
        [sys.executable, __file__, host, str(port), str(count), source],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None

    def end() -> int:
        return int(process.communicate(timeout=30)[0])

    try:
        assert process.stdout.readline() == "all are made\n"
        yield end
    finally:
        process.kill()
        process.communicate()


def main(host: str, port: str, count: str, source: str) -> None:
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    made = 0

    def make() -> None:
        nonlocal made
        sock = socket.socket()
        sock.setblocking(False)
        sock.bind((source, 0))
        sock.connect_ex((host, int(port)))
        selector.register(sock, selectors.EVENT_READ)
        made += 1

    for _ in range(int(count)):
        make()
    print("all are made", flush=True)
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                print(made, flush=True)
                return
            assert isinstance(key.fileobj, socket.socket)
            try:
                if key.fileobj.recv(1000):
                    continue
            except BlockingIOError:
                continue
            except OSError:
                pass
            selector.unregister(key.fileobj)
            key.fileobj.close()
            make()


if __name__ == "__main__":
    main(*sys.argv[1:])
