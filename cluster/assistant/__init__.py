"""The assistant: a process beside the scheduler that runs what users have written for it.

The scheduler never unpickles a user's bytes. What is to run "on the scheduler", functions of `Client.run_on_scheduler`
and scheduler plugins, runs here. The scheduler starts this process when it is first needed, and again when it has died;
it ends with the scheduler.

==================  ==========================================================================================
``__main__.py``     the process: what the scheduler says comes over a socket that it was started with
``errands.py``      the handler of each errand
``view.py``         what functions and plugins see of the scheduler
``plugins.py``      scheduler plugins: started and closed
``listening.py``    what one of them hears of what happens
==================  ==========================================================================================
"""
