"""Answers about many tasks: made in steps, a client at a time, and whole when they have come."""

from __future__ import annotations

import asyncio

import pytest
from scheduler_harness import Cluster
from scheduler_peers import NODE, Peer, Setup

from holdfast.cluster.comm.loops import run
from holdfast.cluster.protocol.answers import merged
from holdfast.cluster.protocol.requests.looking import GROUPINGS
from holdfast.cluster.scheduler.io import inbox as inbox_module
from holdfast.cluster.scheduler.parts import waits as waits_module
from holdfast.cluster.scheduler.watching import introspection, memory

TASKS = 4_000


@pytest.fixture(scope="module")
def state():
    cluster = Cluster(hosts=2, workers=1, validate=False)
    client = cluster.add_client()
    for number in range(TASKS):
        cluster.scatter(client, ("x", number), f"tcp://host{number % 2}:1")
    return cluster.state


ANSWERS = {
    "who-has": lambda state: introspection.who_has(state, None),
    "who-has of some": lambda state: introspection.who_has(state, [("x", n) for n in range(TASKS)] + ["unknown"]),
    "has-what": lambda state: introspection.has_what(state, None),
    "status": lambda state: introspection.status(state, {}, {}, []),
    "memory": lambda state: memory.memory(state, lambda client: (0.0, False), GROUPINGS, None),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_no_step_looks_at_more_than_a_few_hundred_tasks(state, name, monkeypatch):
    looked_at = []
    for table in (state.life.results.table, state.tasks, *(host.objects for host in state.hosts.values())):
        kind = type(table)
        slices = kind.slices

        def counted(self, length, slices=slices):
            for part in slices(self, length):
                looked_at[-1] += len(part)
                yield part

        if not hasattr(slices, "counted"):
            counted.counted = True
            monkeypatch.setattr(kind, "slices", counted)
    steps = ANSWERS[name](state)
    fragments = []
    while True:
        looked_at.append(0)
        try:
            fragment = next(steps)
        except StopIteration as end:
            fragments.append(end.value)
            break
        if fragment is not None:
            assert sum(map(len, fragment.values() if name == "has-what" else [fragment])) <= introspection.STEP_ITEMS
            fragments.append(fragment)
    assert max(looked_at) <= introspection.STEP_ITEMS
    assert len(looked_at) > TASKS / introspection.STEP_ITEMS
    answer = merged(fragments)
    if name.startswith("who-has"):
        expected = {("x", n): [f"tcp://host{n % 2}:1"] for n in range(TASKS)}
        assert answer == ({**expected, "unknown": []} if "some" in name else expected)
    elif name == "has-what":
        hosts = {f"tcp://host{h}:1": {("x", n) for n in range(h, TASKS, 2)} for h in range(2)}
        assert {host: set(keys) for host, keys in answer.items()} == hosts
    elif name == "status":
        assert answer["tasks"] == {"memory": TASKS}
    else:
        assert answer["count"] == len(answer["objects"]) == TASKS
        assert answer["nbytes"] == sum(o["nbytes"] for o in answer["objects"])


def test_the_largest_of_very_many_objects_are_listed(state):
    largest = [state.tasks["x", number] for number in range(0, TASKS, TASKS // 10)]
    for task in largest:
        task.nbytes += 1
    steps = list(memory.memory(state, lambda client: (0.0, False), (), 10))
    assert {o["key"] for step in steps if step for o in step["objects"]} == {task.key for task in largest}
    for task in largest:
        task.nbytes -= 1


def test_somebody_with_many_large_questions_keeps_others_waiting_for_a_step_of_each_turn(monkeypatch):
    """Each turn does one piece of work for each client, whatever time there is."""
    monkeypatch.setattr(inbox_module, "TURN_SECONDS", 0.0)

    async def main():
        async with Setup(validate=False) as setup:
            keys = [f"data-{number}" for number in range(TASKS)]
            ids = [number.to_bytes(16, "big") for number in range(TASKS)]
            entries = [(key, object_id, 1, "bytes", NODE, None) for key, object_id in zip(keys, ids, strict=True)]
            setup.client.connection.send(("scattered", entries, False, ""))
            setup.client.connection.send(("request", 0, "list-datasets", {}))
            await setup.client.next("reply")
            greedy = await Peer.join(setup.scheduler, "client", id="greedy")
            for number in range(1, 41):
                greedy.connection.send(("request", number, "who-has", {"keys": None if number % 2 else keys}))
            while not any(message[0] == "reply" for message in greedy.messages):
                await asyncio.sleep(0)
            steps = []
            step = inbox_module.Inbox.handle_one

            def counted(inbox):
                steps.append(inbox)
                step(inbox)

            monkeypatch.setattr(inbox_module.Inbox, "handle_one", counted)
            setup.client.connection.send(("request", 1, "list-datasets", {}))
            await setup.client.next("reply")
            ours = setup.scheduler._peers["me"].inbox
            assert steps.index(ours) <= 10  # the turns in which the message was on its way
            asked = {message[1] for message in greedy.messages if message[0] == "reply"}
            assert len(asked) < 40
            # And all of them are answered, each whole, one after the other.
            await greedy.until(lambda: sum(message[0] == "reply" for message in greedy.messages) == 40)
            fragments = {}
            for operation, number, *rest in greedy.messages:
                if operation in ("part", "reply"):
                    assert number == max([*fragments, number])
                    fragments.setdefault(number, []).append(rest[-1])
            for number in range(1, 41):
                assert len(merged(fragments[number])) == TASKS
            greedy.connection.close()

    run(main())


def test_a_client_may_have_so_many_requests_waiting_and_no_more(monkeypatch):
    monkeypatch.setattr(waits_module, "MAX_WAITING", 5)

    async def main():
        async with Setup() as setup:
            for number in range(7):
                setup.client.connection.send(("request", number, "wait-for-workers", {"n": 2, "timeout": 1000}))
            refused = [await setup.client.next("reply") for _ in range(2)]
            assert [message[1] for message in refused] == [5, 6]
            assert "5 requests of this client wait already" in refused[0][3][1]
            another = await Peer.join(
                setup.scheduler, "worker", address=NODE + "/1", name="here-1", node=NODE, nthreads=1
            )
            assert [(await setup.client.next("reply"))[1] for _ in range(5)] == list(range(5))
            setup.client.connection.send(("request", 8, "wait-for-workers", {"n": 3, "timeout": 0.01}))
            assert "for 3 workers" in (await setup.client.next("reply"))[3][1]
            another.connection.close()

    run(main())
