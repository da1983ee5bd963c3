"""The nanny's process: ``python -m holdfast.cluster.nanny``. Started by a node agent."""

from __future__ import annotations

import argparse
import socket
import sys

from holdfast.cluster.comm.tokens import add_token_option, token_of
from holdfast.cluster.errands.beside import Beside, leave
from holdfast.cluster.errands.threads import ErrandThreads
from holdfast.cluster.nanny.errands import NannyErrands
from holdfast.cluster.processes import oom
from holdfast.cluster.processes.child import add_process_options, configure_logging, tell_parent
from holdfast.cluster.protocol.errands import ERRAND
from holdfast.cluster.protocol.message import Dispatch
from holdfast.cluster.protocol.nanny import ENDED, TO_NANNY


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m holdfast.cluster.nanny", description="Run what users have written for a host."
    )
    parser.add_argument("--scheduler", required=True, metavar="ADDRESS")
    parser.add_argument("--node", required=True, metavar="ADDRESS", help="of the agent")
    parser.add_argument("--store", required=True, metavar="PATH", help="the socket of the host's store")
    parser.add_argument("--name", required=True, help="of the host, for people")
    parser.add_argument("--socket-fd", required=True, type=int, metavar="N", help="the way to the agent")
    add_token_option(parser)
    add_process_options(parser)
    options = parser.parse_args()
    configure_logging(options)
    oom.be_killed_before_others(oom.WORKER)
    token = token_of(options)
    tell_parent(options.ready_fd, {})
    with socket.socket(fileno=options.socket_fd) as sock:
        agent = Beside(sock)
        errands = NannyErrands(
            options.scheduler,
            options.node,
            options.name,
            store_socket=options.store,
            token=token,
            send=agent.send,
        )
        threads = ErrandThreads("nanny", errands.handlers(), agent.send, "holdfast-errand-nanny")
        dispatch: Dispatch[None] = Dispatch(TO_NANNY, {ERRAND: threads.take})
        for message in agent.messages():
            dispatch(message)
        threads.stop()
        errands.close()
        agent.send(ENDED())
        leave()
    return 0


if __name__ == "__main__":
    sys.exit(main())
