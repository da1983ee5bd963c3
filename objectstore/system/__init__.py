"""What the kernel and this host offer: pages and maps of memory, mounts, limits, directories, forks.

Nothing here knows of objects. A room imports nothing of the others above it, so this one imports none.

==========================  ========================================================================
``pages.py``                pages of memory, made and mapped ahead, and given back
``file_maps.py``            files in memory, and maps that go with the last reference to them
``page_table.py``           which pages of a private map were written
``sentinel_page.py``        whether a process has a piece of memory mapped still
``forks.py``                what is kept for the forks of this process
``mounts.py``               which file system is where
``control_groups.py``       the memory and processors that this process's groups let it have
``memory_limits.py``        how much memory a store may take
``leftovers.py``            directories of one process, and those that dead processes left behind
``surroundings.py``         the umask, the runtime directory, the standard descriptors
==========================  ========================================================================
"""
