"""The life of a task, and what every other room needs: events, instructions, the model, deadlines.

`lifecycle` changes what others read; `moves` changes the state of a task, and nothing else does. It imports from no
other room of the scheduler.
"""
