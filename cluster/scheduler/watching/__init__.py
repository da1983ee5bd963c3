"""Looking at the scheduler without changing it: answers to requests that only read, and listeners of its feed.

An answer about tasks is made in steps of some hundred tasks, since there may be a million. It imports from `machine`
and all that is below.
"""
