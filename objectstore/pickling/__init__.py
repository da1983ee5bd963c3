"""What pickle leaves open. Imports nothing of the other rooms, so that the cluster can use it without a store.

==========================  ========================================================================
``exceptions.py``           what an exception is made of, and one made without a call of its class
``by_value.py``             functions and classes that can only be named, by value
``importing.py``            the imports of unpickling, one thread at a time
``unpickling.py``           exceptions whose classes refuse what pickle gives them
``outline.py``              what a pickle is of, without unpickling it
``own_classes.py``          classes that come back to the process that defined them
==========================  ========================================================================
"""
