"""The processes of a cluster, whatever runs in them: how they begin, how they end together, and what they leave.

======================  ==================================================================================
``child.py``            being a process that ends with its parent
``parent.py``           having such processes
``fork_server.py``      the process that forks the others, so that they need not import anything
``forking.py``          having processes forked by it
``environment.py``      what processes that are started find in their environment
``run_directory.py``    where a process keeps its socket files, and how other processes find it
``host_id.py``          which host this is
``log_files.py``        logs of a bounded size
``restarts.py``         when a process that has ended is started again
``oom.py``              which process the kernel is to kill when there is no memory left
``garbage.py``          garbage collection in a process that must always answer
======================  ==================================================================================

This room imports nothing else of the cluster.
"""
