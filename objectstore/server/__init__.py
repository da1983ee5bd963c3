"""The store's process: what connects the core with sockets, threads and time. Imports all but the client's rooms.

==========================  ========================================================================
``server.py``               `StoreServer`: puts the others together, begins and ends them
``executor.py``             carries out what the core has decided
``local.py``                the store as its own process has it: what a node agent calls
``acceptor.py``             accepts clients
``clients.py``              welcomes them, sends their answers, and parts with them
``client_connection.py``    one client's connection
``requests.py``             what each request does
``orphans.py``              clients without a connection that may still look into the arena
``mover.py``                the thread that copies objects within the arena
``socket_file.py``          the socket's file
==========================  ========================================================================
"""
