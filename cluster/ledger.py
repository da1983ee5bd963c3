"""The ledger: which runs a worker has begun, in memory that its node agent reads without asking.

A worker that is stopped, or in a call into C that keeps the interpreter to itself, gives no answer. What was sent ahead
to it, and what it has not begun, should go to others all the same, and nothing may run twice. So "begun" and "revoked"
are words in memory that a worker's process shares with the agent of its host, one such memory for each process.

Terms
-----
run
    One run of a task on a worker, named by its number (`run_id`). It is *begun* when a thread may call the task.
slot
    The right to run one task: a worker has as many as it runs tasks at once. A task that waits for others *lends* its
    slot, and is *blocked* until it has a slot again (`worker/slots.py`).
to revoke
    To take a run away from its worker: it will never begin there, so it may be sent to another one.
to confirm
    The worker has been told by the scheduler what a revocation has taken away.

The words, of 8 bytes each
--------------------------
=============  ===========================================================================  ==============
incarnation    which of the processes that fill a worker's place one after the other        agent, once
heard          grows while the loop of the worker goes round                                worker
revocations    how many there were                                                          agent
running        for each slot the run that was begun in it last; 0 while that is blocked     worker
threads        for each slot what Python calls its thread (``threading.get_ident()``);      worker
               0 if that has another slot since
lent           the runs that have lent their slots, from then on until they have ended      worker
earlier        a ring of the runs that have been in the slots before                        worker
=============  ===========================================================================  ==============

`holdfast.cluster.worker.ledger` has the worker's side, `holdfast.cluster.node.ledger` the agent's.

Behind the words there is room for the reason for which the worker ends itself (`worker/watchdog.py`), and for its *last
words*, text that Python writes there when a signal kills the process (`node/deaths.py`).

Why nothing runs twice
----------------------
A thread that takes a run from its queue and the agent that revokes it race::

    worker                                        agent
    1  earlier[next] := running[slot]             1  revocations += 1
    2  running[slot] := the run                   2  fence
    3  fence                                      3  is the run in running, lent or earlier?
    4  revocations = those confirmed?                yes: it has begun    no: it is revoked
       yes: it begins    no: it waits

Each writes before it reads, with a fence between, so at least one of them sees what the other has written (Dekker). If
both do, the agent gives way: the run counts as begun, and waits on its worker until that is told what was revoked. If
only the worker does, the run is revoked. It waits for the same word, and is dropped. A run moves from ``running`` to
``earlier`` by 1 before 2, and the agent looks there in the same order, so it finds the run in one of them.

A run that lends its slot is written into ``lent`` before it leaves ``running``, and stays in ``lent`` until it has
ended, though it may come back to ``running`` and leave it again any number of times. When it ends it is in ``running``,
from where it goes to ``earlier`` like others. So an agent that looks into ``running``, ``lent``, ``running`` and
``earlier``, in this order, finds it: if it is in neither of the first two, it either has not begun or has ended in
between.

What has happened to a run that the agent was asked about, and what follows:

======================  =======================  ==============================================================
in the worker           in the ledger            what the agent says, and what becomes of the run
======================  =======================  ==============================================================
not read yet, queued,   no                       revoked; the worker forgets it when it is told
or behind another run
taken, and waits for    seen by the agent        begun; it begins when the worker is told of the revocation
word                    not seen                 revoked; dropped when the worker is told
begun, or has ended     yes                      begun; its outcome comes, or has been sent
======================  =======================  ==============================================================

The worker is told over its connection to the scheduler, behind all runs that were sent to it before. From the
revocation until then it begins nothing. The thread that tells of a revocation looks for the revoked runs while it holds
a lock. A thread that takes a run holds the same lock from the queue until 3: so they are in the queue, or some thread's
``running`` has them. "Those confirmed" in 4 is a number that the thread knew before it took the run. So it does not
miss a revocation that was told of between 3 and 4, and looks with that lock held whether its run is among those that
were revoked (`worker/threads.py`).

How long ``earlier`` must be: a run has to be found as long as the scheduler counts it as its worker's, and that counts
at most N = `runs_max` at a time. A run enters the ring when its thread takes the next one, so its outcome is by
then in the queue of those to be sent. Others that enter after it have their own outcomes there either before it, one
for each other thread, or after it. Of the latter the scheduler can have handled, before that of the run, only those
which left in the same batch, at most N; the others still count, at most N. So 2 N + slots places are enough. Each run
enters the ring once, however often it has lent its slot.

On x86 stores are seen in the order in which they were made, and the fence is any locked instruction, such as taking or
leaving a ``threading.Lock``. Processors with a weaker order would need barriers that Python hasn't; there nothing is
revoked without the worker's own answer (`REVOKES`).
"""

from __future__ import annotations

from holdfast.objectstore.shared.index import ORDERED

#: Whether an agent may revoke runs of a worker that does not answer.
REVOKES = ORDERED
#: The most runs that the scheduler sends a worker at a time, for each of its threads
#: (`scheduler/placing/placement.py`).
RUNS_PER_THREAD_MAX = 510
#: The most runs of a worker that may be blocked at a time.
BLOCKED_MAX = 1000

_WORD_NBYTES = 8
REASON_NBYTES = 512
LAST_WORDS_NBYTES = 64 << 10
INCARNATION, HEARD, REVOCATIONS, RUNNING = range(4)


def runs_max(nthreads: int) -> int:
    """The most runs that the scheduler counts as one worker's at a time, beside those that are blocked."""
    return RUNS_PER_THREAD_MAX * nthreads + 1


def ring_words(nthreads: int) -> int:
    """The length of the ring, a power of two."""
    return 1 << (2 * runs_max(nthreads) + nthreads - 1).bit_length()


def lent_words(nthreads: int) -> int:
    """The number of places in ``lent``."""
    return BLOCKED_MAX + nthreads  # those that are blocked, and those that have a slot again


def words_nbytes(nthreads: int) -> int:
    """The size of all words together."""
    return (RUNNING + 2 * nthreads + lent_words(nthreads) + ring_words(nthreads)) * _WORD_NBYTES
