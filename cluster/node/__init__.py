"""The node agent: one per host. Owns the object store, watches the workers, carries objects between hosts.

======================  ================================================================
``agent.py``            puts the parts together, and takes them down
``scheduler_link.py``   the connection to the scheduler
``supervisor.py``       worker processes: start, watch, restart, stop
``in_process.py``       workers in the process of the agent
``workers.py``          all workers of a host, and how they come and go
``worker_plan.py``      what one of them is to be
``ledger.py``            which runs the worker processes have begun, read without asking them
``deaths.py``           how a worker's process has ended, and what it was doing
``memory_watch.py``     the memory that is a process's own, and the limit on it
``out_of_memory.py``    whether the kernel has killed for want of memory, and by whose limit
``conditions.py``       whether a worker is stopped, or hears nothing
``heartbeat.py``        what the scheduler hears every two seconds
``pages.py``            has the store's pages made by a process, which runs ``page_maker.py``
``errands.py``          what the agent does for clients beside all else
``nanny.py``            the process that does for them what users have written
======================  ================================================================

What moves objects between hosts is the room beside this one, ``cluster/transfer``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.objectstore.lazy import lazy

if TYPE_CHECKING:
    from holdfast.cluster.node.agent import NodeAgent

__all__ = ["NodeAgent"]

__getattr__, __dir__ = lazy(globals(), {"NodeAgent": "holdfast.cluster.node.agent"})
