"""What a task raised, on its way to whoever asks for the result.

====================  ====================================================================
``raised.py``         exceptions as bytes, with all that they are linked to, and back
``tracebacks.py``     tracebacks as plain data, and back
``substitutes.py``    classes that stand for those that can't be had where the error is raised
====================  ====================================================================
"""
