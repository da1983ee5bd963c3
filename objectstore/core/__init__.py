"""What the store decides, without any I/O. Imports ``shared`` and ``memory``.

From the bottom up, each imports only what stands before it:

==========================  ========================================================================
``objects.py``              an object's record, and the states that it goes through
``effects.py``              what the core wants done
``object_index.py``         the server's side of the object index
``address_map.py``          which object lies where in the arena
``eviction.py``             which objects go first
``table.py``                all objects, with their pins
``sharing.py``              how many objects use which bytes
``spill_policy.py``         when objects go to disk, and what is seen to before they're read there
``windows.py``              where a hole is made most cheaply
``compaction.py``           how the hole is made
``create_queue.py``         requests for room, in order
``client_state.py``         what is known of one client
``deadlines.py``            until when requests wait
``room.py``                 what clients have to write
``lookups.py``              requests for objects that aren't there
``obstacles.py``            why there is no hole for a request
``reporting.py``            figures, descriptions, and the errors of a full store
``core.py``                 the store's core, made of these
==========================  ========================================================================
"""
