"""The arena: its memory, which bytes of it are free, and its pages. Imports ``system``.

==========================  ========================================================================
``arena.py``                the memory, as the server has it
``free_extents.py``         free extents by size and by place
``allocator.py``            which bytes of the arena are whose: its two sides, and what lies apart
``headroom.py``             how many pages are made ahead of demand, and when
``filling.py``              how pages are made
``page_requests.py``        having a page maker make them: the store's side
``page_maker.py``           a process that makes them: its inside
``trim.py``                 pages given back: of an idle store, and beyond the capacity
``upkeep.py``               all that is done for the pages of a store that runs
==========================  ========================================================================
"""
