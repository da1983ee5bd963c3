"""What an operation needs and a future refers to: identity, keys, session, resources.

`core.py` puts it together; `transport.py` says what has to be provided for a core over another connection. `session.py`
is the client's end of the protocol, `key_table.py` and `key_state.py` what the client knows of keys, `waits.py` what is
waited for of both. `registry.py` knows the cores of this process.

It imports the rooms of stores, packing and drivers, and knows nothing of futures.
"""
