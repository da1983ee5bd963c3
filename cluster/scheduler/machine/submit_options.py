"""What a client says about how tasks are to run, in a submit."""

from __future__ import annotations

from typing import Any

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.scheduler.placing.placement import Placement
from holdfast.cluster.scheduler.tasks.lifecycle import Lifecycle
from holdfast.cluster.scheduler.tasks.model import Task
from holdfast.cluster.scheduler.tasks.requirements import Requirements


class SubmitOptions:
    """The options of a submit; of one that says nothing, those of the class."""

    priority = 0.0
    retries = 0
    private = False
    run_timeout = 0.0
    requirements: Requirements | None = None

    @classmethod
    def read(cls, options: dict[str, Any], placement: Placement) -> SubmitOptions:
        """Read and check what a submit says."""
        self = cls()
        try:
            self.priority = float(options.get("priority") or 0)
            self.retries = int(options.get("retries") or 0)
            self.private = bool(options.get("writable"))
            self.run_timeout = float(options.get("run_timeout") or 0)
        except (TypeError, ValueError) as error:
            raise ProtocolError(f"malformed options of a task: {error}") from None
        self.requirements = placement.eligibility.requirements(options)
        return self

    def give_to(self, task: Task, life: Lifecycle) -> None:
        """Have them count for a task that is being made."""
        task.requirements = self.requirements
        task.retries = self.retries
        task.private = self.private
        task.priority = (-self.priority, task.serial)
        if self.run_timeout:
            life.run_timeouts[task] = self.run_timeout


NO_OPTIONS = SubmitOptions()
