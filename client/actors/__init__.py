"""Actors: objects that live on a worker, as a user has them.

====================  ===================================================================
``making.py``         what is submitted so that an actor is made
``actor.py``          `Actor`: a handle, by which methods are called
``actor_future.py``   `ActorFuture`: what a call will give
====================  ===================================================================

`holdfast.cluster.worker.actor` says how an actor lives, `holdfast.cluster.scheduler.parts.actors` what becomes of it.
"""
