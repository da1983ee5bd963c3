"""The assistant's process: ``python -m holdfast.cluster.assistant``. Started by a scheduler."""

from __future__ import annotations

import argparse
import socket
import sys

from holdfast.cluster.assistant.errands import AssistantErrands
from holdfast.cluster.comm.tokens import add_token_option, token_of
from holdfast.cluster.errands.beside import Beside, leave
from holdfast.cluster.errands.threads import ErrandThreads
from holdfast.cluster.processes.child import add_process_options, configure_logging
from holdfast.cluster.protocol.assistant import ENDED, TELL, TO_ASSISTANT
from holdfast.cluster.protocol.errands import ERRAND
from holdfast.cluster.protocol.message import Dispatch


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


def _serve(sock: socket.socket, address: str, token: bytes) -> None:
    """Do what the scheduler says, until it says no more."""
    scheduler = Beside(sock)
    errands = AssistantErrands(address, token, scheduler.send)
    threads = ErrandThreads("assistant", errands.handlers(), scheduler.send, "holdfast-errand-assistant")
    dispatch: Dispatch[None] = Dispatch(TO_ASSISTANT, {ERRAND: threads.take, TELL: errands.plugins.tell})
    for message in scheduler.messages():
        dispatch(message)
    threads.stop()
    errands.close()
    scheduler.send(ENDED())
    leave()


if __name__ == "__main__":
    sys.exit(main())
