"""Waiting, written once for all operations.

What the client does is written as *operations*: generators that yield what they wait for (`effects.py`) and return what
they give. A *driver* takes an operation to its end and does the waiting: it blocks the calling thread (`blocking.py`),
it is a coroutine on the caller's event loop (`asynchronous.py`), or it blocks the thread of a task and lends the task's
slot meanwhile (`in_task.py`).

Rules that hold in the whole client:

1. A method of the client either gives a future, a collection or nothing, and never waits in an asynchronous client; or
   it is an operation, which a blocking client runs to its end and an asynchronous one gives as an awaitable.
2. An operation holds no lock, and leaves no thread-local changed, where it yields.
3. Where an operation yields, it may end: by an interrupt, by a cancellation, because its driver does not go on with it.
   What it has begun until then is in order, or is put in order by its ``finally``, which doesn't yield.
4. What an operation calls between two yields is short. What may be long, or blocks on something else than the
   connection to the scheduler, is yielded as `effects.Blocking`.

This room imports nothing of the client's other rooms.
"""
