"""What a task raised, on its way to the client that asks for the result.

====================  ====================================================================
``links.py``          what of an exception, and of all that it is linked to, is sent
``dumping.py``        exceptions as bytes
``loading.py``        and back
``tracebacks.py``     tracebacks as plain data, and back
``substitutes.py``    classes that stand for those that can't be had where the error is raised
====================  ====================================================================
"""
