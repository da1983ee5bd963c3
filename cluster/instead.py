"""Names that dask.distributed has and this library has not, and what there is instead.

People's code asks for them. So each is an error that says what to write; `docs/from-dask.md` tells of it.
"""

from __future__ import annotations

from typing import Any, NoReturn

_RUN = "Client.run and Client.run_on_scheduler call functions in other processes"
_TOPICS = "Client.log_event and Client.subscribe_topic pass messages by topic, and a Queue passes values"
_STATES = "the scheduler has the states of tasks (Client.processing), and a failed task's future has its exception"
_THREADS = "tasks run in threads of the worker's own; to run something beside them, start a thread"
_NO_PORT = "a worker listens on no port: it connects with the scheduler, and its address is <node address>/<number>"
_NO_TLS = "there is no TLS: all sides prove that they know the cluster's token (docs/security.md)"
_PLUGINS = "Client.register_plugin extends workers and the scheduler"
_MOVES = "results lie in the object store of each host: Client.rebalance and Client.replicate move them"
_PROFILE = "Client.profile() looks at what workers do, and Client.call_stack at what they do now"
_RETIRE = "Client.retire_workers ends workers without losing data, and Client.restart_workers starts them anew"
_TRANSFERS = "object stores pass results to each other: 'holdfast memory' shows where results lie"
_METRICS = "Client.scheduler_info()['workers'] has the metrics of each worker"
_BENCHMARK = "measure with a function of your own by Client.run; docs/performance.md has figures"

#: By what is asked: the package, a client, or a worker as its tasks see it.
INSTEAD = {
    "holdfast": {
        "BaseActor": "the handles of actors are of the class Actor",
        "BaseActorFuture": "what calls of actors give is an ActorFuture",
        "CompatibleExecutor": "Client.get_executor() gives an executor of concurrent.futures",
        "CondaInstall": "PipInstall installs packages, and a PackageInstall of your own does it by any other command",
        "ForwardLoggingPlugin": "Client.forward_logging() logs here what workers log",
        "InstallPlugin": "PipInstall installs packages, and the setup of a WorkerPlugin does anything else",
        "Pub": _TOPICS,
        "Sub": _TOPICS,
        "SSHCluster": "'holdfast start --head' on one host and 'holdfast start --address HOST:PORT' on the others "
        "start a cluster, and a SpecCluster of a ProcessInterface of your own runs such commands",
        "Security": _NO_TLS,
        "SubprocessCluster": "the workers of a LocalCluster are processes of their own",
        "get_task_metadata": "get_task_stream(client) records what tasks take, and Client.set_metadata keeps values",
        "local_client": "worker_client is its newer name",
        "performance_report": "get_task_stream(client, plot='save', filename='tasks.html') and "
        "Client.profile(filename='profile.html') write pages",
        "rpc": _RUN,
        "connect": _RUN,
        "span": "dask.annotate marks tasks, and the prefixes of keys tell them apart in Client.get_task_prefix_states",
        "sync": "it is a method: Client.sync() runs a coroutine in the client's loop",
        "warn": "get_worker().log_event() and Client.subscribe_topic tell clients, and tasks' warnings are logged",
        "print": "what tasks print is logged ('holdfast logs'), and Client.forward_logging() brings here what they log",
        "get_versions": "it is a method: Client.get_versions()",
        "collections_to_dsk": "it is a method: Client.collections_to_dsk()",
    },
    "a client": {
        "amm": f"there is no active memory manager: {_MOVES}, and what nothing holds is freed at once",
        "benchmark_hardware": _BENCHMARK,
        "connection_args": _NO_TLS,
        "direct_to_workers": "results always come straight from the stores that have them",
        "executor": "Client.get_executor() gives an executor of concurrent.futures",
        "extensions": _TOPICS,
        "generation": "Client.id names a client for good, however often it connects",
        "get_task_metadata": "get_task_stream(client) records what tasks take, and Client.set_metadata keeps values",
        "preloads": "a client preloads nothing: import what is needed",
        "rpc": _RUN,
        "scheduler_comm": "it is the client's own: Client.scheduler_address names the scheduler, and "
        "Client.run_on_scheduler calls a function beside it",
        "security": _NO_TLS,
    },
    "a worker": {
        "active_keys": _STATES,
        "active_threads": _PROFILE,
        "bandwidth": _TRANSFERS,
        "batched_send": _TOPICS,
        "batched_stream": _TOPICS,
        "benchmark_disk": _BENCHMARK,
        "benchmark_memory": _BENCHMARK,
        "benchmark_network": _BENCHMARK,
        "close": _RETIRE,
        "close_gracefully": _RETIRE,
        "execution_state": "get_current_task() gives the key of the task of this thread",
        "executor": _THREADS,
        "executors": _THREADS,
        "extensions": _PLUGINS,
        "gather": "get_client().gather reads results",
        "get_call_stack": _PROFILE,
        "get_logs": "Client.get_worker_logs() has them",
        "get_metrics": _METRICS,
        "get_profile": _PROFILE,
        "get_story": "Client.story() tells what became of keys",
        "handlers": f"{_PLUGINS}; {_TOPICS}",
        "keys": "data is a mapping of the results on this host",
        "latency": _METRICS,
        "lifetime": _RETIRE,
        "listen_address": _NO_PORT,
        "listener": _NO_PORT,
        "memory_manager": "memory_limit is the limit, and Client.memory() shows what stores hold",
        "metrics": _METRICS,
        "monitor": _METRICS,
        "nanny": "the agent of this host, at node_address, starts workers again that die",
        "periodic_callbacks": "its loop takes callbacks, and a WorkerPlugin's setup may start a thread",
        "plugin_add": _PLUGINS,
        "plugin_remove": "Client.unregister_worker_plugin removes a plugin",
        "port": _NO_PORT,
        "rpc": "a task's client (get_client) calls functions on other workers (Client.run)",
        "run": "Client.run calls a function on each worker",
        "security": _NO_TLS,
        "services": "there is no dashboard; 'holdfast status' and 'holdfast memory' show the cluster",
        "set_resources": "a worker gets them when it starts: 'holdfast start --resources', or Worker(resources=)",
        "stream_handlers": f"{_PLUGINS}; {_TOPICS}",
        "threads": _PROFILE,
        "transfer_incoming_log": _TRANSFERS,
        "transfer_outgoing_log": _TRANSFERS,
        "trigger_profile": _PROFILE,
        "upload_file": "Client.upload_file() sends a file to all workers",
        "versions": "Client.get_versions() has those of all workers",
    },
}


def raise_no_attribute(what: str, name: str, owner: Any) -> NoReturn:
    """Raise what an object that lacks an attribute raises; with what to use instead, if dask's has it.

    Called in ``__getattr__``.

    Parameters
    ----------
    what : str
        What is asked, as in `INSTEAD`.
    name : str
        Of the attribute.
    owner
        The object.
    """
    if hasattr(type(owner), name):
        object.__getattribute__(owner, name)  # a property of it has raised the AttributeError: once more
    way_out = INSTEAD[what].get(name)
    raise AttributeError(f"{what} has no attribute {name!r}{f': {way_out}' if way_out else ''}", name=name, obj=owner)
