"""The assistant's process: ``python -m holdfast.cluster.assistant``. Started by a scheduler."""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import threading
from typing import Any

from holdfast.cluster.assistant.errands import AssistantErrands
from holdfast.cluster.comm import frames
from holdfast.cluster.comm.frame_reader import FrameReader
from holdfast.cluster.comm.tokens import add_token_option, token_of
from holdfast.cluster.errands.threads import ErrandThreads
from holdfast.cluster.processes.child import add_process_options, configure_logging
from holdfast.cluster.protocol.assistant import ENDED, TELL, TO_ASSISTANT
from holdfast.cluster.protocol.errands import ERRAND
from holdfast.cluster.protocol.message import Dispatch

_RECEIVE_NBYTES = 1 << 20


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m holdfast.cluster.assistant", description="Run what users have written for a scheduler."
    )
    parser.add_argument("--scheduler", required=True, metavar="ADDRESS")
    parser.add_argument("--socket-fd", required=True, type=int, metavar="N", help="the way to the scheduler")
    add_token_option(parser)
    add_process_options(parser)
    options = parser.parse_args()
    configure_logging(options)
    with socket.socket(fileno=options.socket_fd) as scheduler:
        _serve(scheduler, options.scheduler, token_of(options))
    return 0


def _serve(scheduler: socket.socket, address: str, token: bytes) -> None:
    """Do what the scheduler says, until it says no more."""
    sending = threading.Lock()

    def send(message: tuple[Any, ...]) -> None:
        with sending, contextlib.suppress(OSError):  # the scheduler is gone, and this process ends
            scheduler.sendall(b"".join(frames.pack([message])))

    errands = AssistantErrands(address, token, send)
    threads = ErrandThreads("assistant", errands.handlers(), send, "holdfast-errand-assistant")
    dispatch: Dispatch[None] = Dispatch(TO_ASSISTANT, {ERRAND: threads.take, TELL: errands.plugins.tell})
    reader = FrameReader()
    while received := _receive(scheduler):
        for batch in reader.feed(received):
            for message in batch:
                dispatch(message)
    threads.stop()
    errands.close()
    send(ENDED())
    # A function may run still, and is not waited for.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _receive(scheduler: socket.socket) -> bytes:
    try:
        return scheduler.recv(_RECEIVE_NBYTES)
    except OSError:
        return b""


if __name__ == "__main__":
    sys.exit(main())
