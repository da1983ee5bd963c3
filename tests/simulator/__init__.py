"""Whole clusters in pretended time, with everything that can go wrong: the scheduler's state machine is the real one.

``make simulate`` runs it, ``python -m tests.simulator --help`` says how. One seed gives one history: the same cluster,
the same work, the same faults, event by event.

Theory of operation
-------------------
`SchedulerState` is what runs in production. Around it everything is pretended: clocks (`clock`), connections
(`network`), the scheduler's sockets (`scheduler`), hosts with stores (`host`), workers (`worker`), clients (`client`).
They send the events that real ones send, and do with instructions what real ones do. They are written for what can be
told apart from outside, and so that they can stop, be cut off, lose things and die between any two steps.

A *profile* (`profile`) says how large a cluster is, how fast, and how often each thing happens in it. The seed draws
it, and leaves many things out: what is rare in a cluster where everything happens comes first in one where little else
does.

A history has four phases (`history`):

==========  ==========================================================================================================
chaos       clients work (`workload`) and faults happen (`faults`), a *step* at a time. What happens is checked event by
            event: the tables that it touched (`invariants`), every answer (`coordination`), every value (`oracle`)
healing     connections are mended, stopped processes go on, and nothing else goes wrong. From then on everything
            comes to an end in a limited time: nothing hangs
settled     every key that a client holds has its value, or an error that names it and that something has caused.
            Hosts have exactly the objects that the scheduler knows of
the end     clients let go of everything. No object, task, wait or deadline is left
==========  ==========================================================================================================

The oracle knows nothing of the state machine. A value is a hash of what it was made from, so a value that is read says
which run made it, from which values. An error has to have a cause among what the simulator did.

A step has random numbers of its own, and so has each connection. So a history from which some steps are left out
goes on much as before, and a failure is told with the few steps that it needs (`shrinking`).
"""
