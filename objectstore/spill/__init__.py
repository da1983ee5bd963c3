"""The files of spilled objects. Imports ``core`` (for what an object is in a file), ``shared``, ``memory``, ``system``.

==========================  ========================================================================
``location.py``             where they are put, if no place is named
``files.py``                the files, with checksums; it blocks
``threads.py``              the threads that write and read them for an event loop
==========================  ========================================================================
"""
