"""What a process holds to use a store. Imports ``codecs``, ``shared``, ``memory`` and ``system``.

==========================  ========================================================================
``store.py``                `Store`: what users call, and `connect`
``writer.py``               how a value gets into the arena
``pending.py``              an object that its creator fills in place
``reader.py``               how an object is found, pinned and shown
``spilled_map.py``          maps of the files of spilled objects
``pins.py``                 what keeps an object's bytes in place
``holdings.py``             what is pinned and reserved, and what of it has died
``views.py``                what this process looks at, by where it lies
``index_view.py``           a client's side of the object index
``connection.py``           the connection to the server
``opening.py``              how it is opened
``arena_maps.py``           the arena, as this process maps it
``private_maps.py``         maps that may be written to, of which no other process sees it
``buffer_map.py``           a map as a buffer
``warm.py``                 pages mapped ahead of use
``names.py``                ids, keys and owners, checked
==========================  ========================================================================
"""
