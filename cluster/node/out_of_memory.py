"""Whether the kernel has killed processes because there was no memory left, and by which limit.

The kernel kills with SIGKILL, as a person does, and doesn't tell. It counts how often it did: on the whole machine, and
in each control group for want of the group's own memory. If such a number has grown shortly before a worker was killed,
that is most likely why.
"""

from __future__ import annotations

from typing import NamedTuple

from holdfast.objectstore.sizes import format_size
from holdfast.objectstore.system import control_groups


class OutOfMemory(NamedTuple):
    """How often processes were killed for want of memory, up to a moment.

    Attributes
    ----------
    on_machine
        Of all processes.
    in_groups
        Of those in this process's control groups, by the folder of each group.
    """

    on_machine: int
    in_groups: dict[str, int]

    @classmethod
    def look(cls) -> OutOfMemory:
        """Look now. What can't be read counts nothing."""
        return cls(_on_machine(), control_groups.memory_kills())

    def since(self, before: OutOfMemory) -> str:
        """Where there were kills after an earlier moment, in words; nothing if there were none."""
        grown = any(count > before.in_groups.get(folder, 0) for folder, count in self.in_groups.items())
        if grown and (limit := control_groups.tightest_memory_limit()) is not None:
            return f"the kernel killed for want of memory: {format_size(limit.nbytes)} for all, by {limit.file}"
        if grown or self.on_machine > before.on_machine:
            return "the kernel killed for want of memory on this machine"
        return ""


def _on_machine() -> int:
    try:
        with open("/proc/vmstat", "rb", buffering=0) as file:
            for line in file.read().splitlines():
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0
