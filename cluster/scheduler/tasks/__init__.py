"""The lowest room of the scheduler: tasks, what holds and runs them, and how they move.

==============================  ======================================================================================
`names`, `model`                what there is: tasks, runs, workers, hosts, holders, which refer to each other
`states`, `moves`, `feed`       the states of a task and its legal moves; the one method that moves a task; how others
                                hear of it. `diagram` draws the states
`lifecycle`                     what each move brings about, and the invariants
`follow_up`, `cancelling`       what follows from an event in other tasks, a piece at a time; cancelling as such
`generations`, `holding`        what a key means; which holder keeps which task
`results`, `stored_errors`      the objects of results and of large exceptions, and where they lie
`lost`                          what was lost with a host that may come back
`sending`, `run_accounts`       sending tasks to workers; what a run counts for there
`requirements`, `placer`        which workers a task asks for; what this room needs to know of the room above
`groups`, `writers`             what tasks that do the same have in common
`functions`, `holders`          the functions of tasks; the holders that there are without any part
`origins`                       what has brought a task, and by which line of code
`events`, `instructions`        what may happen to the scheduler, and what it wants done
`reports`, `wording`            what clients and workers are told
`deadlines`                     a heap of what is due
`partitioned`, `serials`        a dictionary and a set that never grow all at once; which tasks have been seen
==============================  ======================================================================================

Rules of the room: nothing here imports from another room of the scheduler. Where tasks go is decided in the room above
(`placing`), which this one knows by a protocol only (`placer.Placer`). Nothing but `moves.Moves` assigns the state of a
task. Nothing here does I/O, reads a clock, or depends on chance or on the order of a set.
"""
