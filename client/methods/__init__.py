"""The methods of `Client`, by topic: what a user calls, what it is given, and what it is told about that.

Each topic is a class in a file of its own, over a `Face`, and `holdfast.client.client.Client` inherits from all of
them. A method says in its docstring what it does. What is done stands in `holdfast.client.operations`. So a new method
is one operation there, and here its signature, its docstring and a line that hands the operation to the client's
driver: that one definition serves clients of all kinds.

A topic knows the core and not the client, so none of them imports another one or the client.
"""
