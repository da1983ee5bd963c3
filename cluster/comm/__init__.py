"""The wire: frames, the authenticated opening, connections. See `docs/architecture.md`, "The wire".

====================  ======================================================================================
``frames.py``         how a batch of messages lies on the wire, and is put there
``frame_reader.py``   batches out of the bytes that were read
``connection.py``     a connection: batches in both directions over one socket, and its opening
``resumable.py``      a connection that outlives its sockets
``resume.py``         the protocol of that, without I/O
``shared.py``         a transport that other threads use beside the event loop
``connecting.py``     connects to a listener, and comes back to it after a break
``listening.py``      a port that is listened to, and the sessions that may be taken up again
``entrance.py``       connections that have not opened yet
``opening.py``        the two ends of an opening, without I/O
``blocking.py``       the opening over a plain socket
``tokens.py``         the cluster's token
``strangers.py``      peers that speak other protocols
``shortcut.py``       the Unix socket beside each TCP socket
``machine_watch.py``  whether the machine at the other end is there
``addresses.py``      addresses as people write them
``loops.py``          event loops
``limited_log.py``    log lines that any peer can cause
====================  ======================================================================================
"""
