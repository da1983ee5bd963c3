"""The nanny: a process beside each node agent that runs what users have written for hosts.

An agent never unpickles a user's bytes, since all stores and workers depend on it. What is to run "on the nanny",
functions of `Client.run` and node plugins, runs here. The agent starts this process when it is first needed
(`cluster/node/nanny.py`), and again when it has died; it ends with the agent.

==================  ==========================================================================================
``__main__.py``     the process: what the agent says comes over a socket that it was started with
``errands.py``      the handler of each errand
``view.py``         what functions and plugins see of the host
``plugins.py``      node plugins
==================  ==========================================================================================
"""
