"""The peers' side of the comparisons: the same workloads on other systems, each in a virtual environment of its own.

=====================  ==========================================================================
``environments.py``    what each peer needs, and the environment that is made of it when it's missing
``reporting.py``       how a peer's figures are taken and printed
``dask_workloads.py``  the workloads of dask's collections
``actor_calls.py``     the workloads of actors
``floor.py``           no peer: what the machine, and dask on threads, can do
``distributed.py``     dask.distributed
``ray.py``             Ray
``plasma.py``          Plasma, the original store, of the last pyarrow that carried it
``vineyard.py``        Vineyard, another store of immutable objects
=====================  ==========================================================================

``python -m benchmarks.peers.ray`` runs one of them, with the interpreter of its environment. So what a module here
imports of this repository imports nothing of Holdfast. The names of the metrics are those of Holdfast's own workloads
(``cluster_workloads.py``, ``store_workloads.py``); the sizes and pauses are the same.
"""
