"""Work in a forked child."""

from __future__ import annotations

import os
import pwd
import signal
from collections.abc import Callable


def in_fork(work: Callable[[], object], user: str | None = None) -> str:
    """What ``work`` returns, or raises, in a forked child; the child is killed if that takes long.

    With ``user`` the child is that user's process. Only root can do that.
    """
    account = None if user is None else pwd.getpwnam(user)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)
            if account is not None:
                os.setgroups([])
                os.setgid(account.pw_gid)
                os.setuid(account.pw_uid)
            answer = str(work())
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(write, answer.encode())
        os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    os.set_blocking(read, False)  # a fork of the child's may keep the other end open
    with os.fdopen(read, "rb", buffering=0) as answers:
        return (answers.read() or b"").decode()
