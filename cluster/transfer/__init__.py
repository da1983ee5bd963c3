"""Objects between hosts: from one host's store to another's, or to a client that is on no store's host.

==================  ====================================================================
``pool.py``         the asking side: what brings an object from another host, or to it
``server.py``       the answering side: a node agent's port
``giving.py``       how the answering side sends an object, and when it lets go of it
``fetcher.py``      what a node agent brings here, once however many ask
``checksums.py``    bytes through a socket, with the checksum of what was sent and came
==================  ====================================================================

This room knows `comm`, and stores. It knows no scheduler, worker or client.
"""
