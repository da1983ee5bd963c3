"""Where tasks run: the second room of the scheduler.

====================  ================================================================================================
`placement`           the queues of ready tasks, and which worker with room takes which
`eligibility`         which workers may run which tasks
`reservations`        workers that are reserved for a task each
`lending`             runs that wait for others, and lend what they have
`recall`              taking back what waits behind a run that takes longer than expected
`revocation`          taking runs away from a worker that does not answer
`suspects`            which task is charged for the death of a worker
`reconsidering`       tasks that may run now and could not before, and those that no longer may
`unrunnable`          tasks that no worker may run: what they lack, and telling of it
====================  ================================================================================================

Rules of the room: it imports from `tasks` only. It chooses and counts; the state of a task is changed by `tasks`
(`Lifecycle`), which asks this room by `tasks.placer.Placer`.
"""
