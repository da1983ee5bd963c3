"""Benchmarks: Holdfast's figures beside its peers', taken in the same run on the same machine.

``store.py`` is what ``make bench-store`` runs. The parts, each of use to any other benchmark too:

=======================  ==================================================================
``figures.py``           one measured number, its JSON line, and the median of several rounds
``goals.py``             what is to be reached, as data, and whether it was
``table.py``             figures and goals as a table
``page.py``              the part of ``docs/performance.md`` that is generated
``machine.py``           what the figures were measured on
``systems.py``           how Holdfast's workloads and the peers' are run, each in its own process
``store_workloads.py``   the object store's workloads, one process that prints JSON lines
``memory.py``            how much memory processes really use together
=======================  ==================================================================
"""
