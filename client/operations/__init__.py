"""What a client does, by topic: one function for each method of `Client`.

A function that gives futures or collections is a plain one, and never waits in an asynchronous client. All others are
operations (`holdfast.client.drivers`). They take a `Core` and know no client.
"""
