"""What a client sends: keys, functions, arguments, graphs and options, as messages carry them.

Nothing here knows a client or a scheduler. What a future is, `futures.py` says by a protocol class; where large data
goes, and which future stands for which, callers give as functions.
"""
