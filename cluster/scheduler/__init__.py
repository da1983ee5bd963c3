"""The scheduler: a state machine without any I/O, and a server around it.

Each room imports from those below it only, also for types; within a room there is no circle (``.importlinter``):

============  ========================================================================================================
`io`          sockets and timers: messages become events, instructions become messages
`watching`    answers that only read the state, and listeners of its feed
`machine`     the order in which an event is handled, the table of what answers it, and what is about hosts, workers and
              clients
`parts`       what isn't the life of a task: datasets, copies, requests that wait
`placing`     which task goes where, and what is taken back
`tasks`       the life of a task; what all others need: events, instructions, deadlines
============  ========================================================================================================

`machine` lies above `parts` because it knows its parts by a tuple that never changes; nothing is added to it while it
runs. It lies below `watching` because a reader looks at all of the state. What a reader is asked for by the machine
goes by way of an instruction (`tasks.instructions.Answer`), which the server carries out.

Rules of the house: nothing below `io` reads a clock, blocks, or depends on chance or on the order of a set. So the same
events at the same times lead to the same instructions, in production, in a test and in a simulation.
"""
