"""What a cluster tells of itself, for people and for programs: the same for `Client` and for the command ``holdfast``.

======================  ======================================================================
``asking.py``           what has to be asked, one question after the other, without any I/O
``explanation.py``      `Explanation`: why a task is in its state, and what keeps its result
``memory.py``           `MemoryReport`: what lies in the stores, and why
``places.py``           how the states of an object in a store are called
``suspicions.py``       which objects may be there for nobody, and why that is thought
``phrases.py``          clients and other holders in words
======================  ======================================================================
"""
