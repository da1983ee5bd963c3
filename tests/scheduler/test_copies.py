"""What can't be made again and is published gets a second copy, and another one when it has lost one."""

from __future__ import annotations

import pytest
from scheduler_harness import LARGE, Cluster

from holdfast.cluster.protocol import requests
from holdfast.cluster.scheduler.parts import copies
from holdfast.cluster.scheduler.tasks import events


@pytest.fixture
def cluster():
    cluster = Cluster(hosts=2)
    cluster.add_client("client")
    return cluster


def publish(cluster, *keys, name="data", request=7):
    cluster.publish("client", request, name, list(keys))


def where(cluster, key):
    return {host.address for host in cluster.state.tasks[key].where}


def answers(cluster):
    found, cluster.replies = [(reply.ok, reply.value) for reply in cluster.replies], []
    return found


def test_the_publisher_has_its_answer_when_there_is_a_second_copy(cluster):
    one, other = cluster.state.hosts
    cluster.scatter("client", "x", one)
    publish(cluster, "x")
    assert answers(cluster) == []
    assert [host for host, _ in cluster.copying] == [other]
    cluster.bring_copies()
    assert answers(cluster) == [(True, None)]
    assert where(cluster, "x") == {one, other}
    assert not cluster.state.copies.wanting


def test_with_one_host_it_has_it_at_once():
    cluster = Cluster(hosts=1)
    cluster.add_client("client")
    cluster.scatter("client", "x", "tcp://host0:1")
    publish(cluster, "x")
    assert answers(cluster) == [(True, None)]
    assert [want.reason for want in cluster.state.copies.wanting.values()] == [copies.NO_OTHER_HOST]
    second = cluster.add_host()
    cluster.bring_copies()
    assert where(cluster, "x") == {"tcp://host0:1", second}


def test_only_what_goes_with_its_host_counts_as_lost():
    cluster = Cluster(hosts=1)
    cluster.add_worker("tcp://host0:1")
    cluster.add_client("client")
    cluster.scatter("client", "x", "tcp://host0:1")
    cluster.submit("client", {"y": []})
    cluster.finish("y", nbytes=LARGE)
    publish(cluster, "x", "y", name="one")
    datasets = [("two", b"data", ["y"], {})]
    cluster.request("client", 8, requests.PUBLISH(datasets=datasets, override=False, copies=2))
    tasks, single = cluster.state.tasks, cluster.state.copies.single
    (holder,), _, is_lost = single(tasks["x"])
    assert (holder.id, is_lost) == ("one", True)
    (holder,), _, is_lost = single(tasks["y"])
    assert (holder.id, is_lost) == ("two", False), "it is computed again"


@pytest.mark.parametrize("kind", ["result", "small", "two copies", "not published"])
def test_what_needs_none_gets_none(cluster, kind):
    one, other = cluster.state.hosts
    if kind == "result":
        cluster.add_worker(one)
        cluster.submit("client", {"x": []})
        cluster.finish("x")
    else:
        cluster.scatter("client", "x", one, inline=b"small" if kind == "small" else None)
    if kind == "two copies":
        cluster.copy("x", other)
    if kind != "not published":
        publish(cluster, "x")
        assert answers(cluster) == [(True, None)]
    assert not cluster.copying


def test_what_it_was_made_of_is_held_and_copied(cluster):
    one, other = cluster.state.hosts
    cluster.add_worker(one)
    cluster.add_worker(other)
    cluster.scatter("client", "x", one)
    cluster.submit("client", {"y": ["x"], "z": ["y"]}, wants=["z"])
    cluster.finish("y")
    cluster.finish("z")
    publish(cluster, "z")
    assert answers(cluster) == []
    cluster.bring_copies()
    assert answers(cluster) == [(True, None)]
    cluster.release("client", "x", "z")
    assert where(cluster, "x") == {one, other}
    for host in where(cluster, "z"):
        cluster.remove_host(host)
    assert cluster.state.tasks["z"].state in ("ready", "waiting", "processing"), "it is being made again"
    cluster.unpublish("client", 8, "data")
    assert not cluster.state.tasks


def test_what_was_made_of_data_that_is_gone_is_copied(cluster):
    one, other = cluster.state.hosts
    cluster.add_worker(one)
    cluster.scatter("client", "x", one)
    cluster.submit("client", {"y": ["x"], "z": ["y"], "above z": ["z"]}, wants=["z", "above z"])
    for key in ("y", "z", "above z"):
        cluster.finish(key)
    cluster.release("client", "x")
    publish(cluster, "z", "above z")
    assert answers(cluster) == []
    cluster.bring_copies()
    assert answers(cluster) == [(True, None)]
    assert where(cluster, "z") == {one, other}
    assert where(cluster, "above z") == {one}, "it can be made of the other one"
    cluster.release("client", "z", "above z")
    cluster.remove_host(one)
    assert where(cluster, "z") == {other}
    third = cluster.add_host()
    cluster.bring_copies()
    assert where(cluster, "z") == {other, third}, "there are two again"
    cluster.unpublish("client", 8, "data")
    assert not cluster.state.tasks
    assert not cluster.state.copies._orphans


def test_what_was_made_of_data_that_is_gone_and_ends_after_the_answer_is_copied(cluster):
    one, other = cluster.state.hosts
    cluster.add_worker(one)
    cluster.scatter("client", "x", one)
    cluster.submit("client", {"y": ["x"], "z": ["y"]}, wants=["z"])
    cluster.finish("y")
    cluster.release("client", "x")
    publish(cluster, "z")
    assert answers(cluster) == [(True, None)], "a task that has no result yet is not waited for"
    cluster.finish("z")
    cluster.bring_copies()
    assert where(cluster, "z") == {one, other}


def test_what_an_object_contains_is_copied_too(cluster):
    one, other = cluster.state.hosts
    for key in ("inner", "x"):
        cluster.scatter("client", key, one)
    cluster.handle(events.ReferencesFound("client", [("x", ["inner"])]))
    publish(cluster, "x")
    assert cluster.bring_copies() == 2
    assert where(cluster, "inner") == where(cluster, "x") == {one, other}
    cluster.scatter("client", "later", one)
    cluster.handle(events.ReferencesFound("client", [("x", ["later"])]))
    cluster.bring_copies()
    assert where(cluster, "later") == {one, other}


class TestAHostThatDies:
    def test_before_the_answer_with_the_only_copy(self, cluster):
        one, _ = cluster.state.hosts
        cluster.scatter("client", "x", one)
        publish(cluster, "x")
        cluster.remove_host(one)
        ((ok, (error, text)),) = answers(cluster)
        assert (ok, error) == (False, "ObjectLostError")
        assert "'x'" in text
        assert not cluster.state.datasets.published

    @pytest.mark.parametrize("ncopies", [1, 2])
    def test_before_the_answer_when_another_dataset_has_the_name(self, cluster, ncopies):
        one, other = cluster.state.hosts
        cluster.scatter("client", "old", other)
        publish(cluster, "old")
        cluster.bring_copies()
        cluster.scatter("client", "new", one)
        datasets = [("data", b"", ["new"], {}), ("more", b"", ["new"], {})]
        cluster.request("client", 8, requests.PUBLISH(datasets=datasets, override=True, copies=ncopies))
        assert [task.key for task in cluster.state.datasets.published["data"].holds] == ["old"]
        cluster.remove_host(one)
        assert answers(cluster)[-1][1][0] == "ObjectLostError"
        assert list(cluster.state.datasets.published) == ["data"]
        cluster.release("client", "old")
        assert where(cluster, "old") == {other}

    def test_before_the_answer_with_what_it_was_to_bring(self, cluster):
        one, other = cluster.state.hosts
        cluster.scatter("client", "x", one)
        publish(cluster, "x")
        cluster.remove_host(other)
        assert answers(cluster) == [(True, None)]
        assert list(cluster.state.datasets.published) == ["data"]

    def test_before_the_answer_when_there_is_a_third(self, cluster):
        one, other = cluster.state.hosts
        third = cluster.add_host()
        cluster.scatter("client", "x", one)
        publish(cluster, "x")
        ((host, _),) = cluster.copying
        cluster.remove_host(host)
        assert answers(cluster) == []
        cluster.bring_copies()
        assert answers(cluster) == [(True, None)]
        assert where(cluster, "x") == {one, ({other, third} - {host}).pop()}

    def test_later_so_that_there_are_two_again(self, cluster):
        one, other = cluster.state.hosts
        third = cluster.add_host()
        for number in range(10):
            cluster.scatter("client", f"x{number}", one)
        publish(cluster, *(f"x{number}" for number in range(10)))
        cluster.bring_copies()
        lost = [key for key in (f"x{number}" for number in range(10)) if other in where(cluster, key)]
        cluster.remove_host(other)
        assert 0 < len(cluster.copying) <= copies.MAX_SPARE_COPIES
        while cluster.bring_copies():
            assert len(cluster.copying) <= copies.MAX_SPARE_COPIES
        assert lost
        assert all(where(cluster, f"x{number}") == {one, third} for number in range(10))

    def test_and_comes_back(self, cluster):
        one, other = cluster.state.hosts
        cluster.scatter("client", "x", one)
        publish(cluster, "x")
        cluster.bring_copies()
        cluster.cut_off_host(one)
        assert [want.reason for want in cluster.state.copies.wanting.values()] == [copies.NO_OTHER_HOST]
        cluster.join_again(one)
        assert where(cluster, "x") == {one, other}
        assert not cluster.state.copies.wanting


class TestSeveralPublishers:
    def test_of_one_name_the_second_is_told_of_the_first(self, cluster):
        one, _ = cluster.state.hosts
        cluster.scatter("client", "x", one)
        publish(cluster, "x")
        publish(cluster, "x", request=8)
        ((ok, (error, text)),) = answers(cluster)
        assert (ok, error) == (False, "DatasetExistsError")
        assert "is being published by client" in text

    def test_one_that_may_replace_others_takes_the_name_of_one_that_may_not(self, cluster):
        one, _ = cluster.state.hosts
        cluster.scatter("client", "x", one)
        cluster.scatter("client", "small", one, inline=b"small")
        publish(cluster, "x")
        cluster.publish("client", 8, "data", ["small"], override=True)
        assert answers(cluster) == [(True, None)]
        cluster.bring_copies()
        ((ok, (error, _)),) = answers(cluster)
        assert (ok, error) == (False, "DatasetExistsError")
        assert [task.key for task in cluster.state.datasets.published["data"].holds] == ["small"]


class TestNoCopy:
    def test_a_host_that_can_t_is_passed_over(self, cluster):
        one, *others = [*cluster.state.hosts, cluster.add_host()]
        cluster.scatter("client", "x", one)
        publish(cluster, "x")
        tried = []
        for _ in others:
            tried += [host for host, _ in cluster.copying]
            cluster.bring_copies(reason="there is no room")
        assert sorted(tried) == sorted(others)
        assert answers(cluster) == [(True, None)]
        (want,) = cluster.state.copies.wanting.values()
        assert want.reason.endswith("there is no room")
        cluster.now = cluster.state.next_deadline
        cluster.handle(events.TimePassed())
        cluster.bring_copies()
        assert len(where(cluster, "x")) == 2

    def test_one_that_does_not_answer_is_not_waited_for(self, cluster):
        one, other = cluster.state.hosts
        third = cluster.add_host()
        cluster.scatter("client", "x", one)
        publish(cluster, "x")
        ((slow, _),) = cluster.copying
        cluster.now = copies.COPY_SECONDS
        cluster.handle(events.TimePassed())
        assert [host for host, _ in cluster.copying[1:]] == [({other, third} - {slow}).pop()]
        assert answers(cluster) == [(True, None)]  # its time is over as well
        cluster.bring_copies()
        assert where(cluster, "x") == {one, other, third}
        assert not cluster.state.copies.wanting

    def test_a_store_that_is_too_small_is_not_asked(self):
        cluster = Cluster(hosts=1)
        cluster.add_client("client")
        cluster.add_host(capacity=LARGE // 2)
        cluster.scatter("client", "x", "tcp://host0:1")
        publish(cluster, "x")
        assert answers(cluster) == [(True, None)]
        (want,) = cluster.state.copies.wanting.values()
        assert "has room for 5,000,000 bytes" in want.reason

    def test_a_dataset_that_is_unpublished_meanwhile_is_published_after_that(self, cluster):
        one, _ = cluster.state.hosts
        cluster.scatter("client", "x", one)
        publish(cluster, "x")
        cluster.unpublish("client", 8, "data")
        assert answers(cluster) == [(True, None)], "there is none of this name yet"
        cluster.bring_copies()
        assert list(cluster.state.datasets.published) == ["data"]
        cluster.unpublish("client", 9, "data")
        cluster.release("client", "x")
        cluster.catch_up()
        assert not any(cluster.stores.values())

    def test_a_publisher_that_leaves_meanwhile(self, cluster):
        one, other = cluster.state.hosts
        cluster.scatter("client", "x", one)
        publish(cluster, "x")
        cluster.remove_client("client")
        cluster.bring_copies()
        assert answers(cluster) == []
        assert where(cluster, "x") == {one, other}
        assert list(cluster.state.datasets.published) == ["data"]


def test_many_copies_are_made_few_at_a_time(cluster):
    one, other = cluster.state.hosts
    keys = [f"x{number}" for number in range(100)]
    for key in keys:
        cluster.scatter("client", key, one)
    publish(cluster, *keys)
    most = 0
    while cluster.copying:
        most = max(most, len(cluster.copying))
        cluster.bring_copies()
    assert most == copies.MAX_COPIES
    assert answers(cluster) == [(True, None)]
    assert all(where(cluster, key) == {one, other} for key in keys)
