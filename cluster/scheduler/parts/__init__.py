"""The parts of the state machine: what isn't the life of a task.

A part is a class that answers its own requests and events, and whose holders, waits, notes in the journal and
invariants are its own (`part`). A new one is a file here and an entry of `machine.SchedulerState.parts`. A part may
know another one that it was given; none is known by its name. It imports from `placing` and `tasks`.
"""
