"""Starting whole clusters on one machine, or bringing them about part by part.

=========================  ============================================================================================
``local.py``               `LocalCluster`: a cluster on this machine that lives as long as a Python object
``plan.py``                how many hosts, workers and threads, with how much memory
``cluster_processes.py``   its processes; ``keeper.py`` starts node agents again
``in_process.py``          all of it in this process
``scheduler.py``           `Scheduler`, in the event loop of whoever makes it
``worker.py``              `Worker` and `Nanny`, likewise; ``local_node.py`` is the node agent that they share
``cluster.py``             `Cluster`: what all clusters have in common; ``runner.py`` is its loop, and
                           ``scheduler_comm.py`` its connection
``options.py``             what options of a `LocalCluster` mean for its scheduler and workers
``spec.py``                `SpecCluster`: whose scheduler and workers are said one by one
``adaptive.py``            `Adaptive`: as many workers as there is work for
``process_interface.py``   what a cluster knows of its scheduler and workers, whatever they are
``scheduler_file.py``      the file that says where a scheduler is
``keywords.py``            keywords of dask's that have no effect here, and why; ``blocked_handlers.py``
``interfaces.py``          the addresses of network interfaces
``ask.py``                 one question to a scheduler, without an event loop
``service.py``             what ``holdfast start`` leaves running
=========================  ============================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.objectstore.lazy import lazy

if TYPE_CHECKING:
    from holdfast.cluster.deploy.adaptive import Adaptive
    from holdfast.cluster.deploy.cluster import Cluster
    from holdfast.cluster.deploy.local import LocalCluster
    from holdfast.cluster.deploy.process_interface import ProcessInterface, Status
    from holdfast.cluster.deploy.scheduler import Scheduler
    from holdfast.cluster.deploy.spec import SpecCluster
    from holdfast.cluster.deploy.worker import Nanny, Worker

__all__ = [
    "Adaptive",
    "Cluster",
    "LocalCluster",
    "Nanny",
    "ProcessInterface",
    "Scheduler",
    "SpecCluster",
    "Status",
    "Worker",
]

__getattr__, __dir__ = lazy(
    globals(),
    {
        "Adaptive": "holdfast.cluster.deploy.adaptive",
        "Cluster": "holdfast.cluster.deploy.cluster",
        "LocalCluster": "holdfast.cluster.deploy.local",
        "Nanny": "holdfast.cluster.deploy.worker",
        "ProcessInterface": "holdfast.cluster.deploy.process_interface",
        "Scheduler": "holdfast.cluster.deploy.scheduler",
        "SpecCluster": "holdfast.cluster.deploy.spec",
        "Status": "holdfast.cluster.deploy.process_interface",
        "Worker": "holdfast.cluster.deploy.worker",
    },
)
