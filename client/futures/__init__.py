"""What stands for a result: futures, how they are read, waited for, held and unpickled.

A future refers to a `Core`, not to a client. What waits is an operation (`reading.py`, `waiting.py`, `holding.py`); a
method of a future is one line that has the core's driver run it.
"""
