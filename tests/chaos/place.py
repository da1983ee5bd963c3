"""The directory in which a cluster under chaos lives: whatever it leaves anywhere is found here."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import struct
import tempfile
from pathlib import Path

#: In the environment of all processes of a run, those that tasks start too.
MARK = "HOLDFAST_CHAOS_RUN"
#: The state of a socket in /proc/net/tcp.
_LISTENS = "0A"
#: So many lines of each log tell what a process said last.
TAIL_LINES = 25


class Place:
    """Makes the directory, and points this process and all that it starts there.

    Attributes
    ----------
    logs : Path
        Each process writes one of its own.
    durable : Path
        Where durable datasets lie.
    holders : Path
        Files that say which process has a lock: see `tests.chaos.holders`.
    spill : Path
        Where stores put what doesn't fit.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="hf-chaos-", dir="/tmp"))  # short: paths of sockets are limited
        self.logs, self.durable, self.spill, self.holders = (
            self.path / name for name in ("logs", "durable", "spill", "holders")
        )
        self._run, self._state, self._temporary = (self.path / name for name in ("run", "state", "tmp"))
        for directory in (self.logs, self.spill, self.holders, self._run, self._state, self._temporary):
            directory.mkdir(mode=0o700)
        token = self.path / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self._mark = secrets.token_hex(8)
        os.environ.update(
            {
                MARK: self._mark,
                "HOLDFAST_TOKEN_FILE": str(token),
                "XDG_RUNTIME_DIR": str(self._run),
                "XDG_STATE_HOME": str(self._state),
                "TMPDIR": str(self._temporary),
            }
        )
        for name in ("HOLDFAST_TOKEN", "HOLDFAST_ADDRESS", "HOLDFAST_CLUSTER_ID", "HOLDFAST_DURABLE"):
            os.environ.pop(name, None)
        tempfile.tempdir = None

    def processes(self) -> dict[int, str]:
        """Those of this run but this one, with their command lines. Zombies have ended."""
        mark = f"{MARK}={self._mark}".encode()
        found = {}
        for entry in os.listdir("/proc"):
            if entry.isdecimal() and int(entry) != os.getpid():
                with contextlib.suppress(OSError):
                    if mark in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                        command = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").strip()
                        found[int(entry)] = command.decode(errors="replace")
        return found

    def addresses(self, pid: int) -> tuple[str, ...]:
        """Where a process listens."""
        held = set()
        with contextlib.suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    held.add(os.readlink(link))
        found = []
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENS and f"socket:[{fields[9]}]" in held:
                number, port = fields[1].split(":")
                host = socket.inet_ntoa(struct.pack("=I", int(number, 16)))
                found.append(f"tcp://{host}:{int(port, 16)}")
        return tuple(found)

    def files(self) -> list[str]:
        """What lies where nothing may lie once the cluster has ended: sockets, locks, spilled objects, registers."""
        found = [*self._run.glob("holdfast/*"), *self._run.glob("holdfast-leftovers/*")]
        found += [*self.spill.iterdir(), *self._temporary.iterdir()]
        found += [file for file in self.durable.rglob("*") if file.is_file() and file.parent.name == "writers"]
        return [str(path.relative_to(self.path)) for path in found]

    def tails(self) -> str:
        """The last lines of each log."""
        parts = []
        for log in sorted(self.logs.iterdir()):
            lines = log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
            if lines:
                parts.append("\n".join([f"--- the end of {log}", *lines]))
        return "\n".join(parts)

    def remove(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.path, ignore_errors=True)
