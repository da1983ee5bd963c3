"""The worker: a process, or a part of one, that runs tasks in threads. See `docs/architecture.md`.

====================== ======================================================================
``worker.py``          how a worker starts and ends, and what it is made of
``hearing.py``         what the scheduler says, and what it means here
``threads.py``         the queue of tasks and the threads that take from it
``slots.py``           which thread has the right to run a task
``running.py``         what a thread does with one task, around its execution
``execution.py``       one task, from its message to its outcome
``blocking.py``        what a task does around a wait for others
``coroutines.py``      tasks that are coroutines
``actors.py``          the objects that live here, by number
``actor.py``           how one lives: its thread, its calls, its coroutines
``actor_calls.py``     calls that wait for an actor
``actor_outcomes.py``  what calls come to, on its way to the callers
``tasks_transport.py`` the way of what the tasks say as a client
``dask_scheduler.py``  what computes dask's collections here
``outcomes.py``        outcomes on their way to the scheduler, and the seals of their results
``write_behind.py``    small results, until they are stored or not wanted any more
``rejoining.py``       how it goes on with a scheduler that has come in the place of another one
``waiting_runs.py``    tasks that wait for a run that was sent before them
``ledger.py``          which runs it has begun, for its node agent to read
``functions.py``       functions by digest
``dependencies.py``    what a task gets to see of the results that it depends on
``getitem.py``         calls that take one item of a dependency
``imports.py``         what tasks import, out of the garbage collector's sight
``display_names.py``   what the store calls a task's result
``readonly.py``        functions that write into their arguments
``forks.py``           processes that tasks fork
``main_module.py``     what ``__main__`` is in a worker
``output.py``          what tasks print, line by line
``preloading.py``      what its maker wants it to run before its first task
``warm_up.py``         what a worker does before its first task
``tracebacks.py``      what a user sees of a task's failure
``watchdog.py``        whether this process is any use still
``face.py``            what tasks see of their worker
``context.py``         which task runs in this thread
====================== ======================================================================
"""

from holdfast.cluster.worker.worker import Worker

__all__ = ["Worker"]
