"""Plugins: what users have each worker, each host's agent, or the scheduler do beside its work.

====================  ==============================================================================
``base.py``           what a plugin is
``files.py``          files and folders that become importable
``packages.py``       packages that are installed
``environment.py``    variables of the environment
``callbacks.py``      functions that are called
====================  ==============================================================================

A client registers a plugin, and the scheduler keeps it as bytes for those that come later
(`cluster/scheduler/parts/plugins.py`). What is here runs where the plugin was sent to. It imports nothing of the
cluster: a plugin gets all that it works with from the worker, node or scheduler that it is set up on.
"""
