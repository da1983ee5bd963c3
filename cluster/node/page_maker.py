"""The process that makes the pages of a host's store: ``python -m holdfast.cluster.node.page_maker``.

What it does to the pages is the store's part (``objectstore/memory/page_maker.py``). It gets requests over a socket
that keeps messages apart, and ends with that.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys

from holdfast.cluster.processes import oom
from holdfast.cluster.processes.child import add_process_options, tell_parent
from holdfast.objectstore.memory.page_maker import lower_priority, serve


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m holdfast.cluster.node.page_maker", description="Make pages of an object store, when idle."
    )
    parser.add_argument("--requests-fd", type=int, required=True, metavar="N", help="where requests come from")
    parser.add_argument("--arena-fd", type=int, required=True, metavar="N", help="the memory of the store")
    parser.add_argument("--capacity", type=int, required=True, metavar="N", help="how many bytes it may take up")
    add_process_options(parser)
    options = parser.parse_args()
    oom.be_killed_before_others(oom.AGENT)
    lower_priority()
    tell_parent(options.ready_fd, {})
    with contextlib.suppress(ConnectionError), socket.socket(fileno=options.requests_fd) as requests:
        serve(requests, options.arena_fd, options.capacity)
    return 0


if __name__ == "__main__":
    sys.exit(main())
