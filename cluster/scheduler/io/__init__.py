"""The scheduler's I/O: the one room that knows sockets, timers and an event loop.

What is decided here is about connections: which peer is read when, which has enough to read, which is silent. All else
is an event for the state machine. It imports from all rooms of the scheduler; no room imports from it.
"""
