"""What clients and tasks share by name: locks, events, semaphores, queues and variables.

`named` is what all of them have in common, `leases` how a place in a line is asked for and given back. The scheduler
keeps what the names stand for (`holdfast.cluster.scheduler.parts`); an object here is only a way to it.
"""
