"""Benchmarks: Holdfast's figures beside its peers', taken in the same run on the same machine.

``cluster.py`` is what ``make bench`` and ``make bench-peers`` run, ``store.py`` is ``make bench-store``, ``path.py`` is
``make bench-path``, ``bytecodes.py`` is ``make bench-bytecodes``, ``placement.py`` is ``make bench-placement``,
``fragmentation.py`` is ``make bench-fragmentation``.
The parts, each of use to any other benchmark too:

=========================  ==================================================================
``comparison.py``          one run in which the systems take turns: its options, its output
``figures.py``             one measured number, its JSON line, and the median of several rounds
``goals.py``               what is to be reached, as data, and whether it was
``table.py``               figures and goals as a table
``page.py``                the part of ``docs/performance.md`` that is generated
``machine.py``             what the figures were measured on
``systems.py``             how Holdfast's workloads and the peers' are run, each in its own process
``peers/``                 the peers' side: the same workloads on other systems, and their environments
``cluster_workloads.py``   the cluster's workloads, one process that prints JSON lines
``functions.py``           what their tasks call
``simulated.py``           what a task costs the scheduler's state machine, without a cluster
``store_workloads.py``     the object store's workloads, one process that prints JSON lines
``memory.py``              how much memory processes really use together
``peak_memory.py``         how much they use together at the most, while something runs
``placement_cases.py``     graphs that are hard on a scheduler, as dask code
``placement_run.py``       one system through one of them, one process that prints JSON lines
``processor_time.py``      how much processor time they take
``path_points.py``         the points that a task passes in each process, and how they are seen
``path_spans.py``          from points to the spans of one task
``probed_process.py``      a process of a cluster that such points, or bytecodes, are seen of
``bytecode_counter.py``    counts what the interpreter does in one process
``bytecode_client.py``     the client of a cluster whose processes all count
=========================  ==================================================================
"""
