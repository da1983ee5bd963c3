"""Metadata and events: what clients and tasks leave with the scheduler for each other."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from waiting import until

from holdfast import Client, get_client
from holdfast.client.operations import records
from holdfast.cluster.protocol.limits import MAX_PAYLOAD_NBYTES, MAX_RECORD_DEPTH


class Point:
    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return isinstance(other, Point) and self.x == other.x

    __hash__ = None


class TestMetadata:
    def test_each_value_comes_back_as_what_it_was(self, run):
        async def case(client, got):
            for value in (
                None,
                True,
                3,
                -(2**70),
                2.5,
                float("inf"),
                "text",
                b"bytes",
                [1, (2, [3])],
                (1, 2),
                {},
                {"a": {}, "b": {"c": [1]}},
                {1: "one", (1, "x"): None, b"k": 2.0},
                {frozenset({1}): 1},
                {1, 2},
                Point(1),
                {"point": Point([2])},
            ):
                await got(client.set_metadata("value", value))
                assert await got(client.get_metadata("value")) == value
                assert type(await got(client.get_metadata("value"))) is type(value)

        run(case)

    def test_paths_lead_into_dictionaries(self, run):
        async def case(client, got):
            tree = f"tree-{client.id}-{id(got)}-{time.monotonic()}"
            await got(client.set_metadata([tree, "a"], 1))
            await got(client.set_metadata((tree, "b", 3), "deep"))
            assert await got(client.get_metadata(tree)) == {"a": 1, "b": {3: "deep"}}
            assert await got(client.get_metadata([tree, "b"])) == {3: "deep"}
            await got(client.set_metadata([tree, "b"], {"new": {"x": [0]}}))
            assert await got(client.get_metadata([tree, "b", "new", "x"])) == [0]
            assert await got(client.get_metadata([tree, "b", 3], default="none")) == "none"
            assert await got(client.get_metadata([tree, "a", "below"], None)) is None
            with pytest.raises(KeyError, match="nothing"):
                await got(client.get_metadata("nothing"))
            await got(client.set_metadata([tree, "a", "below"], 1))
            assert await got(client.get_metadata([tree, "a"])) == {"below": 1}
            await got(client.set_metadata(tree, 0))
            assert await got(client.get_metadata(tree)) == 0

        run(case)

    def test_what_is_too_much_is_refused_with_a_way_out(self, run_outside_of_tasks):
        async def case(client, got):
            with pytest.raises(ValueError, match="keeps 1,048,576 of one value at most: scatter it"):
                await got(client.set_metadata("large", b"x" * (MAX_PAYLOAD_NBYTES + 1)))
            with pytest.raises(ValueError, match="keeps 10,000 of one value at most"):
                await got(client.set_metadata("wide", dict.fromkeys(range(10_001))))
            for part in range(2):
                await got(client.set_metadata(["wide", part], dict.fromkeys(range(9_000))))
            with pytest.raises(ValueError, match="there may be 67,108,864 in 20,000"):
                await got(client.set_metadata(["wide", 3], dict.fromkeys(range(9_000))))
            assert len(await got(client.get_metadata("wide"))) == 2
            await got(client.set_metadata("wide", {}))
            await got(client.set_metadata(["narrow", 3], dict.fromkeys(range(9_000))))
            await got(client.set_metadata("narrow", {}))

        run_outside_of_tasks(case)

    def test_wrong_keys_and_values_are_refused_at_the_call(self, client):
        for keys, error in (([], ValueError), (["x"] * (MAX_RECORD_DEPTH + 1), ValueError), ([{1}], TypeError)):
            with pytest.raises(error, match="metadata is"):
                client.set_metadata(keys, 1)
        with pytest.raises(ValueError, match="metadata is"):
            client.get_metadata([])
        with pytest.raises((TypeError, AttributeError), match="pickle"):
            client.set_metadata("lock", threading.Lock())
        nested = value = {}
        for _ in range(3 * MAX_RECORD_DEPTH):
            value["below"] = {}
            value = value["below"]
        client.set_metadata("nested", nested)
        assert client.get_metadata("nested") == nested

    def test_large_answers_come_in_parts(self, client):
        value = {n: {"data": bytes([n]) * 100_000} for n in range(9)}
        client.set_metadata("parts", value)
        assert client.get_metadata("parts") == value
        client.set_metadata("parts", {})


class TestEvents:
    def test_they_are_kept_by_topic(self, run):
        async def case(client, got):
            topic = f"topic-{id(case)}"
            before = time.time()
            assert await got(client.get_events(topic)) == ()
            await got(client.log_event(topic, {"step": 1}))
            await got(client.log_event([topic, "other"], [1, (2,)]))
            found = await got(client.get_events(topic))
            assert [message for _, message in found] == [{"step": 1}, [1, (2,)]]
            assert before - 1 <= found[0][0] <= found[1][0] <= time.time() + 1
            everything = await got(client.get_events())
            assert everything[topic] == found
            assert everything["other"][-1][1] == [1, (2,)]

        run(case)

    def test_subscribers_are_told_in_order_and_others_are_not(self, run):
        async def case(client, got):
            heard = []
            for topic in ("told", "other"):
                await got(client.subscribe_topic(topic, heard.append))
            await got(client.unsubscribe_topic("other"))
            for n in range(1_200):
                client_log = client.log_event(["told", "other"], n)
                if n % 100 == 0 or n == 1_199:
                    await got(client_log)
                elif asyncio.iscoroutine(client_log):
                    await client_log
            for _ in range(1_000):
                if len(heard) >= 1_200:
                    break
                await asyncio.sleep(0.01)
            assert [message for _, message in heard] == list(range(1_200))
            await got(client.unsubscribe_topic("told"))
            with pytest.raises(ValueError, match="not subscribed to the topic 'told'"):
                await got(client.unsubscribe_topic("told"))

        run(case)

    def test_a_handler_may_be_a_coroutine_function_and_may_fail(self, run):
        async def case(client, got):
            heard = []

            async def handler(event):
                await asyncio.sleep(0)
                heard.append(event[1])
                if event[1] == 0:
                    raise RuntimeError("a handler's own")

            await got(client.subscribe_topic("coroutine", handler))
            for n in range(3):
                await got(client.log_event("coroutine", n))
            for _ in range(1_000):
                if len(heard) >= 3:
                    break
                await asyncio.sleep(0.01)
            assert heard == [0, 1, 2]
            await got(client.unsubscribe_topic("coroutine"))

        run(case)

    def test_one_that_fails_with_each_event_is_logged_now_and_then(self, client, monkeypatch, caplog):
        heard = []

        def fail(event):
            heard.append(event)
            raise RuntimeError("a handler's own")

        def said():
            return [record.getMessage() for record in caplog.records if "handler" in record.getMessage()]

        monkeypatch.setattr(records, "FAILURE_PAUSE_SECONDS", 3600.0)
        client.subscribe_topic("failing", fail)
        for n in range(30):
            client.log_event("failing", n)
        until(lambda: len(heard) == 30, "it was told of all")
        assert said() == ["a handler of the topic 'failing' failed"]
        monkeypatch.setattr(records, "FAILURE_PAUSE_SECONDS", 0.0)
        client.log_event("failing", 30)
        until(lambda: len(said()) == 2, "it is said again")
        assert said()[1] == "a handler of the topic 'failing' failed, and 29 times before since this was said last"
        client.unsubscribe_topic("failing")

    def test_another_handler_takes_the_place_of_the_first(self, client):
        first, second = [], []
        client.subscribe_topic("place", first.append)
        client.subscribe_topic("place", second.append)
        client.log_event("place", 1)
        until(lambda: second, "it is told")
        assert not first
        client.log_event("place", 2)
        until(lambda: len(second) == 2, "it is told again")

    def test_each_of_several_clients_of_a_process_is_told_once(self, cluster):
        with Client(cluster, set_as_default=False) as one, Client(cluster, set_as_default=False) as two:
            heard, also = [], []
            one.subscribe_topic("shared", heard.append)
            two.subscribe_topic("shared", also.append)
            with Client(cluster, set_as_default=False) as three:
                three.log_event("shared", "x")
            until(lambda: heard and also, "both are told")
            two.unsubscribe_topic("shared")
            one.log_event("shared", "y")
            until(lambda: len(heard) == 2, "one is told")
            assert len(also) == 1

    def test_a_task_logs_by_its_client_and_by_its_worker(self, client):
        def log(n):
            from holdfast.cluster.worker.context import current_worker

            get_client().log_event("tasks", ("client", n))
            current_worker().log_event("tasks", ("worker", n))
            with pytest.raises(TypeError):
                current_worker().log_event(3, "no topic")
            return n

        assert client.gather(client.map(log, range(5))) == list(range(5))
        until(lambda: len(client.get_events("tasks")) == 10, "all are logged")
        expected = {(kind, n) for kind in ("client", "worker") for n in range(5)}
        assert {message for _, message in client.get_events("tasks")} == expected

    def test_the_scheduler_logs_peers_that_come_and_go(self, cluster, client):
        with Client(cluster, set_as_default=False, name="visitor") as visitor:
            name = visitor.id
        until(lambda: len(client.get_events(name)) == 2, "it has left")
        assert [message["action"] for _, message in client.get_events(name)] == ["add-client", "remove-client"]
        actions = [(message["action"], message.get("name")) for _, message in client.get_events("all")]
        assert ("add-client", "visitor") in actions
        workers = set(client.scheduler_info()["workers"])
        assert workers == {m["worker"] for _, m in client.get_events("all") if m["action"] == "add-worker"}

    def test_wrong_topics_and_handlers_are_refused(self, client):
        for wrong, error in ((3, TypeError), ("", ValueError), ([], (TypeError, ValueError)), ("x" * 2000, ValueError)):
            with pytest.raises(error):
                client.log_event(wrong, 1)
            with pytest.raises(error):
                client.subscribe_topic(wrong, print)
        with pytest.raises(TypeError, match="the handler of a topic is a function"):
            client.subscribe_topic("topic", None)
        with pytest.raises(ValueError, match="keeps 1,048,576"):
            client.log_event("topic", b"x" * (MAX_PAYLOAD_NBYTES + 1))
