"""Chaos: a real cluster works, its processes are killed and stopped at random, and nothing may be lost.

    python -m tests.chaos --seconds 600 --seed 7

Clients, each a process of its own, ask the cluster for all kinds of things (`operations`) and compare each answer with
one that they have computed without a cluster. Meanwhile a *nemesis* kills and stops the cluster's processes and the
clients, and cuts the link by which some clients reach the scheduler (`victims`). A seed decides what happens when; what
the system makes of it is not repeatable, so everything that was done stands in a *timeline*. The run has three stages:

===========  ==========================================================================================================
faults       processes are killed and stopped, for as long as was asked for. Each error that reaches a client is
             judged: it may be only one that the deeds so far explain (`verdicts`). A client without an answer for long
             hangs, and that is a failure
healing      nothing is killed any more, and what was stopped goes on: all hosts and workers have to come back, the
             clients come to their end, and everything that they have left by name is read once more
accounts     what the stores have is compared with what the scheduler has, before and after all is let go of. After
             that every store is empty; and after the end of the cluster there is no process, no file (`accounts`)
===========  ==========================================================================================================

=====================  ================================================================================================
`run`                  the three stages
`victims`              the table of what is killed and stopped, and the nemesis
`operations`           the table of what clients do
`client_program`       the process of a client; `clients` is what the run has of it
`verdicts`             the table of which errors may reach a user, and when
`timeline`             what happened when: deeds, answers, errors
`accounts`             what stores, scheduler and the machine have at the end
`holders`              the machine's word for which process has a lock
`place`                the directory in which all of it lives
=====================  ================================================================================================
"""
