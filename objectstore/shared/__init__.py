"""What the server and its clients both know. Imports ``memory``.

==========================  ========================================================================
``ids.py``                  object ids
``frames.py``               how messages lie in a stream
``protocol.py``             the messages
``index.py``                the object index: its layout, and why it is safe
``layout.py``               objects that lie in several segments, since they share data
==========================  ========================================================================
"""
