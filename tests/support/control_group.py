"""Real control groups, where this machine lets tests make them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from holdfast.objectstore.system.control_groups import _folders


class ControlGroup:
    """A group with a limit on memory, and in it one without, for processes.

    Attributes
    ----------
    is_unified : bool
        Whether it is of version 2.
    """

    def __init__(self, top: Path, is_unified: bool, nbytes: int) -> None:
        self.is_unified = is_unified
        self._outer = top / f"holdfast-test-{uuid.uuid4().hex[:8]}"
        self._inner = self._outer / "step" / "task"
        if is_unified:
            (top / "cgroup.subtree_control").write_text("+memory")
        self._outer.mkdir()
        try:
            (self._outer / ("memory.max" if is_unified else "memory.limit_in_bytes")).write_text(str(nbytes))
            self._inner.mkdir(parents=True)
        except BaseException:
            self.remove()
            raise

    def run(self, code: str, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run Python code in the group without a limit of its own."""
        enter = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
        command: Sequence[str] = ["sh", "-c", enter, str(self._inner), sys.executable, "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout)

    @property
    def killed(self) -> int:
        """How many of its processes the kernel has killed because of the limit."""
        # Version 2 counts for a group what happens in all that are in it.
        if self.is_unified:
            files = [self._outer / "memory.events"]
        else:
            files = [path / "memory.oom_control" for path in (self._outer, self._inner.parent, self._inner)]
        counts = [line.split() for file in files for line in file.read_text().splitlines()]
        return sum(int(count) for what, count in counts if what == "oom_kill")

    def remove(self) -> None:
        """Once its processes have ended, or are about to."""
        for path in (self._inner, self._inner.parent, self._outer):
            for _ in range(500):
                with contextlib.suppress(FileNotFoundError):
                    try:
                        path.rmdir()
                    except OSError:  # the last of its processes is about to end
                        time.sleep(0.01)
                        continue
                break


@contextlib.contextmanager
def control_group(nbytes: int) -> Iterator[ControlGroup]:
    """A group of ``nbytes`` of memory. Raises OSError where there can't be one."""
    error = OSError("no hierarchy of control groups with memory is mounted")
    for folder in _folders("", "memory"):
        try:
            group = ControlGroup(Path(folder.path), folder.is_unified, nbytes)
        except OSError as refused:
            error = refused
            continue
        try:
            yield group
        finally:
            group.remove()
        return
    raise error
