"""Starting whole clusters on one machine, or bringing them about part by part.

==========================  ===========================================================================================
``cluster.py``              `Cluster`: what all clusters have in common that a Python object stands for; below it
                            ``observed_cluster.py``, which asks the scheduler how its workers are, and
                            ``loop_object.py``, whose methods block or are awaited
``runner.py``               the loop of such an object, and ``scheduler_comm.py`` its connection to the scheduler
``amounts.py``              how many workers some memory or some cores are
``adaptive.py``             `Adaptive`: as many workers as there is work for

``local.py``                `LocalCluster`: a cluster on this machine that lives as long as a Python object
``options.py``              what its options mean; ``plan.py``: how many hosts, workers, threads, how much memory
``local_life.py``           how its parts begin and end
``cluster_processes.py``    these are processes; ``keeper.py`` starts node agents again,
                            ``scheduler_place.py`` the scheduler
``in_process.py``           or all of it is in this process
``local_workers.py``        which workers it has, and how many
``host_plans.py``           which workers its hosts are to have; ``local_scaling.py`` tells the hosts
``local_views.py``          what it says of its scheduler and workers

``spec.py``                 `SpecCluster`: whose scheduler and workers are said one by one
``worker_specs.py``         what the specification of a worker says
``spec_correction.py``      makes the workers what the specifications say; ``spec_parts.py`` has them
``spec_garbage.py``         the end of one that nobody closes
``process_interface.py``    what a cluster knows of its scheduler and workers, whatever they are
``silence.py``              loggers that say less while a cluster is open

``scheduler.py``            `Scheduler`, in the event loop of whoever makes it
``worker.py``               `Worker` and `Nanny`, likewise; ``local_node.py`` is the node agent that they share
``lasting_executor.py``     threads for calls that block, also when the interpreter ends

``service.py``              what ``holdfast start`` leaves running
``ask.py``                  one question to a scheduler, without an event loop
``scheduler_file.py``       the file that says where a scheduler is
``keywords.py``             keywords of dask's that have no effect here, and why; ``blocked_handlers.py``
``interfaces.py``           the addresses of network interfaces
==========================  ===========================================================================================
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
