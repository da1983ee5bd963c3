"""Errands: how a process does what the scheduler asks of it beside its tasks.

==================  ==========================================================================================
``threads.py``      takes errands, does each in a thread, and sends what it has come to
``calls.py``        functions of users, called for an errand
``plugin_table.py`` the plugins of a process, from when each is set up until it is taken down
``beside.py``       the way of a process that does nothing else
``own_client.py``   the client of such a process
==================  ==========================================================================================

What errands there are is in `cluster/protocol/errands.py`. What is done about each is in the process that does it:
`cluster/worker/errands.py`, `cluster/node/errands.py`, `cluster/assistant/errands.py`, `cluster/nanny/errands.py`.
"""
