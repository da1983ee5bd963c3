"""What a scheduler answers is what the definition of the request says."""

from __future__ import annotations

import asyncio

from scheduler_peers import NODE, Setup

from holdfast.cluster.comm.loops import run
from holdfast.cluster.protocol import client, errands, requests, worker
from holdfast.cluster.protocol.answers import merged
from holdfast.cluster.protocol.requests import REQUESTS

#: In the order in which they are asked.
ARGUMENTS = {
    requests.LIST_TASKS: {},
    requests.LIST_CLIENTS: {},
    requests.VERSIONS: {"packages": ["zarr"]},
    requests.WHO_HAS: {"keys": ["x", "data"]},
    requests.HAS_WHAT: {},
    requests.NTHREADS: {"workers": None},
    requests.INFO: {},
    requests.STATUS: {},
    requests.MEMORY: {},
    requests.PROCESSING: {},
    requests.SIZES: {"summary": True},
    requests.PREFIX_STATES: {},
    requests.EXPLAIN: {"key": "x"},
    requests.STORY: {"keys": ["x"]},
    requests.DUMP: {"run_spec": True},
    requests.SCHEDULER_LOGS: {"n": 5},
    requests.SCHEDULER_PROFILE: {"start": 0.0},
    requests.SET_METADATA: {"path": ["a", 1], "record": [(["b"], 2), (["c"], ())]},
    requests.GET_METADATA: {"path": ["a"]},
    requests.SUBSCRIBE: {"topic": "t"},
    requests.LOG_EVENT: {"topics": ["t", "u"], "record": [((), b"pickled")]},
    requests.UNSUBSCRIBE: {"topic": "t"},
    requests.GET_EVENTS: {},
    requests.STAND: {
        "name": "s",
        "operation": "record-tasks",
        "arguments": {"client": "c", "on": True},
        "undo": {"client": "c", "on": False},
    },
    requests.WITHDRAW: {"name": "s"},
    requests.PUBLISH: {"datasets": [("d", b"recipe", ["x"], {})]},
    requests.LIST_DATASETS: {},
    requests.DESCRIBE_DATASETS: {"names": ["d"]},
    requests.GET_DATASET: {"name": "d"},
    requests.UNPUBLISH: {"name": "d"},
    requests.WAIT_FOR_WORKERS: {"n": 1},
    requests.ADD_WORKERS: {"node": NODE, "indices": [7]},
    requests.REMOVE_WORKERS: {"node": NODE, "workers": []},
    requests.ADAPTIVE_TARGET: {"target_duration": 5.0, "brings_memory": True},
    requests.REGISTER_PLUGIN: {"kind": "worker", "name": "p", "call": b"plugin", "keys": ["x"]},
    requests.UNREGISTER_PLUGIN: {"kind": "worker", "name": "p"},
    requests.ERRAND: {"operation": "versions", "arguments": {}, "timeout": 0.0},
    requests.ACQUIRE_LOCKS: {"names": ["a", ("b", 1)], "lease": 1},
    requests.IS_LOCKED: {"name": "a"},
    requests.RELEASE_LOCKS: {"lease": 1},
    requests.OPEN_SEMAPHORE: {"name": "s", "max_leases": 2},
    requests.ACQUIRE_SEMAPHORE: {"name": "s", "lease": 2},
    requests.SEMAPHORE_VALUE: {"name": "s"},
    requests.CLOSE_SEMAPHORE: {"name": "s"},
    requests.RELEASE_SEMAPHORE: {"lease": 2},
    requests.SET_EVENT: {"name": "e"},
    requests.IS_EVENT_SET: {"name": "e"},
    requests.WAIT_FOR_EVENT: {"name": "e", "wait": 3},
    requests.STOP_WAITING: {"wait": 3},
    requests.CLEAR_EVENT: {"name": "e"},
    requests.REPLICATE: {"keys": ["data"], "n": 1},
    requests.REBALANCE: {},
    requests.FIND_OBJECT: {"object_id": b"o" * 16},
    requests.WORKERS_TO_CLOSE: {"n": 1},
    requests.RETIRE_WORKERS: {"workers": [NODE], "close_workers": False, "close_hosts": False},
    requests.AWAIT_KILLS: {"kill": 1},
    requests.OPEN_QUEUE: {"name": "q", "maxsize": 3},
    requests.PUT: {"name": "q", "data": b"item", "keys": ["x"], "lease": 4},
    requests.PUT_QUIETLY: {"name": "q", "data": b"item", "keys": []},
    requests.QUEUE_SIZE: {"name": "q"},
    requests.GET: {"name": "q", "lease": 5, "count": 2},
    requests.CONFIRM_ITEMS: {"lease": 5},
    requests.GIVE_UP_ITEMS: {"lease": 5},
    requests.CLOSE_QUEUE: {"name": "q"},
    requests.SET_VARIABLE: {"name": "v", "data": b"value", "keys": ["x"]},
    requests.GET_VARIABLE: {"name": "v", "lease": 6},
    requests.END_READING: {"lease": 6},
    requests.DELETE_VARIABLE: {"name": "v"},
    requests.RESTART_WORKERS: {"workers": [NODE], "timeout": 0.0},
    requests.RESTART: {"timeout": 0.0, "wait_for_workers": False},
    requests.BEGUN: {"keys": ["x"]},
    requests.CANCEL_UNSTARTED: {"keys": ["x"]},
    requests.RECIPE: {"key": "x", "blamed": False},
    requests.PROGRESS: {"keys": ["x"]},
    requests.SHUTDOWN: {},
}

#: What has nothing to say of a task that has ended.
MAY_BE_EMPTY = (requests.BEGUN, requests.CANCEL_UNSTARTED, requests.RECIPE, requests.PROGRESS)
#: What the worker answers.
ANSWERS = {
    errands.SET_UP_PLUGINS.operation: {"failed": []},
    errands.TAKE_DOWN_PLUGIN.operation: {"failed": []},
    errands.RECORD_TASKS.operation: None,
}


def as_received(value):
    """As an array arrives: fragments are put together into lists."""
    if isinstance(value, list):
        return tuple([as_received(item) for item in value])
    return {key: as_received(item) for key, item in value.items()} if isinstance(value, dict) else value


async def ask(setup, number, request, arguments):
    """The value of the reply, its fragments put together."""
    peer = setup.client
    peer.connection.send(client.REQUEST(number, *request(**arguments)))
    _, answered, ok, value = await peer.next(client.REPLY.operation)
    assert ok, value
    assert answered == number, "what has no answer was answered"
    parts = [said for message in peer.messages if (said := client.PART.fields_of(message)) is not None]
    fragments = [fragment for of, fragment in parts if of == number]
    return as_received(merged([*fragments, value]) if fragments else value)


async def do_errands(peer):
    """A worker that does what it is sent, at once and to no end."""
    while True:
        _, number, operation, _ = await peer.next(errands.ERRAND.operation)
        if operation in ANSWERS:
            peer.connection.send(errands.ERRAND_DONE(number, True, ANSWERS[operation]))


def test_every_answer_is_what_its_request_says():
    assert ARGUMENTS.keys() == set(REQUESTS)

    async def main():
        async with Setup() as setup:
            setup.client.connection.send(client.SCATTERED([("data", b"o" * 16, 10, "bytes", NODE, None)], False, ""))
            setup.submit("x")
            ((_, run_id, *_, serial),) = (await setup.worker.next("run"))[1]
            result = (serial, run_id, b"r" * 16, 10, b"inline", "bytes", 0.1)
            setup.worker.connection.send(worker.FINISHED([result]))
            await setup.client.next("memory")
            working = asyncio.ensure_future(do_errands(setup.worker))
            for number, (request, arguments) in enumerate(ARGUMENTS.items()):
                if request.quiet:
                    setup.client.connection.send(client.REQUEST(number, *request(**arguments)))
                    continue
                if request is requests.RESTART:  # the process that is being restarted has ended
                    setup.worker.connection.close()
                    async with asyncio.timeout(20):
                        while setup.scheduler.state.workers:
                            await asyncio.sleep(0.001)
                answer = await ask(setup, number, request, arguments)
                request.answer.check(answer, request.operation)
                assert answer or request in MAY_BE_EMPTY or request.answer.__class__.__name__ == "Nothing"
            working.cancel()

    run(main())
