"""Runs a command as the child of one that hears nothing: ``python deaf.py COMMAND ...``.

What asks it to end is blocked, and it isn't told when its children have ended; a command inherits both.
"""

from __future__ import annotations

import os
import signal
import sys

if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.execvp(sys.argv[1], sys.argv[1:])
