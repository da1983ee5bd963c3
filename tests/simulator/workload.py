"""What clients do: the steps of a history that are work. Each is done by one client, chosen by chance."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from holdfast.cluster.protocol import requests
from holdfast.cluster.scheduler.tasks import events
from tests.simulator.client import Client
from tests.simulator.coordination import MAX_LEASES
from tests.simulator.oracle import Recipe
from tests.simulator.world import World

NAMES = ("a", "b")
#: Keys that are used for one thing after another.
CHOSEN_KEYS = ("x1", "x2", "x3")
TIMEOUTS = (0.0, 0.5, 5.0)


class Step(NamedTuple):
    """What is done, by whom, and with which chances."""

    world: World
    client: Client
    chance: random.Random

    def number(self) -> int:
        return self.world.new_number()

    def held(self, most: int) -> list[Any]:
        """Some of the keys that the client holds."""
        keys = [key for key, state in self.client.table.items() if state.status in ("pending", "finished")]
        return self.chance.sample(keys, min(most, len(keys), self.chance.randint(0, most)))

    def ask(self, asked: Any, then: Callable[[bool, Any], None] | None = None) -> None:
        self.client.ask(asked, then)


OPERATIONS: dict[str, Callable[[Step], None]] = {}


def operation(function: Callable[[Step], None]) -> Callable[[Step], None]:
    """Declares an operation, by the name of its function."""
    OPERATIONS[function.__name__] = function
    return function


# -- tasks


def _recipe(step: Step, key: Any, reads: list[Any], behaviour: str = "plain") -> Recipe:
    profile, chance = step.world.profile, step.chance
    return step.world.oracle.recipe(
        key,
        reads,
        seconds=profile.task_seconds * chance.random(),
        is_small=behaviour == "actor" or chance.random() < profile.inline,
        behaviour=behaviour,
        children=chance.randint(1, 3),
    )


def _options(step: Step) -> dict[str, Any]:
    chance, options = step.chance, {}
    if chance.random() < 0.1:
        options["retries"] = chance.randint(1, 3)
    if chance.random() < 0.1:
        options["priority"] = chance.randint(-1, 1)
    if chance.random() < 0.05:
        options["resources"] = {"gpu": 1.0}
    if chance.random() < 0.05 and step.world.hosts:
        options["workers"] = [chance.choice(list(step.world.hosts.values())).name]
        options["allow_other_workers"] = chance.random() < 0.5
    return options


def _submit(step: Step, recipes: list[Recipe], wants: list[Any] | None = None) -> None:
    options = _options(step)
    if options.keys() & {"resources", "workers"}:
        step.world.oracle.cause("NoWorkerError", *[recipe.key for recipe in recipes])
    step.client.submit(recipes, wants, **options)


@operation
def submit(step: Step) -> None:
    """Independent tasks that read some of what is there."""
    reads = step.held(3)
    keys = [f"t{step.number()}" for _ in range(step.chance.choice([1, 1, 4, 20]))]
    _submit(step, [_recipe(step, key, reads) for key in keys])


@operation
def submit_graph(step: Step) -> None:
    """A graph of which some results are wanted."""
    chance = step.chance
    recipes: list[Recipe] = []
    keys = step.held(2)
    for _ in range(chance.choice([3, 8, 25])):
        reads = chance.sample(keys, min(len(keys), chance.randint(0, 3)))
        recipes.append(_recipe(step, f"g{step.number()}", reads))
        keys.append(recipes[-1].key)
    wants = [recipe.key for recipe in recipes if chance.random() < 0.2] or [recipes[-1].key]
    _submit(step, recipes, wants)


@operation
def submit_chain(step: Step) -> None:
    """Tasks that read one another, of which the last one is wanted."""
    recipes: list[Recipe] = []
    for _ in range(step.chance.choice([3, 10])):
        recipes.append(_recipe(step, f"n{step.number()}", [recipes[-1].key] if recipes else step.held(1)))
    _submit(step, recipes, [recipes[-1].key])


@operation
def submit_odd(step: Step) -> None:
    """Tasks that fail, once or always, kill their worker, or want to be run again."""
    behaviour = step.chance.choice(["fails", "fails once", "kills", "reschedules"])
    recipe = _recipe(step, f"o{step.number()}", step.held(2), behaviour)
    if behaviour in ("fails", "fails once"):
        step.world.oracle.cause("Broken", recipe.key)
    above = _recipe(step, f"t{step.number()}", [recipe.key])
    _submit(step, [recipe, above])


@operation
def submit_parents(step: Step) -> None:
    """Tasks that submit tasks and wait for them."""
    keys = [f"p{step.number()}" for _ in range(step.chance.choice([1, 3]))]
    _submit(step, [_recipe(step, key, step.held(1), "parent") for key in keys])


@operation
def submit_chosen(step: Step) -> None:
    """A task under a key that is used again and again, and one that reads it."""
    key = step.chance.choice(CHOSEN_KEYS)
    step.world.oracle.is_chosen.add(key)
    _submit(step, [_recipe(step, key, []), _recipe(step, f"t{step.number()}", [key])])


@operation
def submit_unattended(step: Step) -> None:
    """Tasks that run though nobody holds them."""
    recipes = [_recipe(step, f"u{step.number()}", []) for _ in range(3)]
    _submit(step, recipes)
    keys = [recipe.key for recipe in recipes]
    step.client.post(events.KeysUnattended(step.client.id, keys))
    step.client.release(keys)


@operation
def scatter(step: Step) -> None:
    """Data that the client brings."""
    hosts = [host for host in step.world.hosts.values() if host.is_connected and host.has_room and not host.is_apart]
    if not hosts:
        return
    objects = []
    for _ in range(step.chance.choice([1, 3])):
        host = step.chance.choice(hosts)
        key, object_id = f"d{step.number()}", step.world.new_object()
        value = object_id + b"data"
        step.world.oracle.brought(key, value)
        inline = value if step.chance.random() < 0.2 else None
        host.put(object_id, value, step.client.id)
        step.client.hold(key)
        objects.append((key, object_id, step.world.nbytes(inline is not None), "bytes", host.address, inline))
    step.client.post(events.ObjectsScattered(step.client.id, objects))
    if step.chance.random() < 0.2:
        inner = step.held(2)
        if inner:
            step.client.post(events.ReferencesFound(step.client.id, [(objects[0][0], inner)]))


@operation
def release(step: Step) -> None:
    step.client.release(step.chance.sample(list(step.client.table), min(len(step.client.table), 12)))


@operation
def gather(step: Step) -> None:
    """Read all that is there."""
    for key in list(step.client.table):
        step.client.read(key)


@operation
def want(step: Step) -> None:
    """Hold what another client holds."""
    other = step.chance.choice(list(step.world.clients.values()))
    keys = step.chance.sample(list(other.table), min(len(other.table), 3))
    # It may be let go of meanwhile, or be there only for others to be made from, and what it was made from let go of.
    step.world.oracle.cause("CancelledError", *keys)
    step.world.oracle.cause("ObjectLostError", *keys)
    step.client.want(keys)


@operation
def retry(step: Step) -> None:
    failed = [key for key, state in step.client.table.items() if state.status == "error"][:3]
    for key in failed:
        step.client.table[key].status = "pending"
        step.world.oracle.cause("ObjectLostError", key)  # data that it reads may have been let go of since it failed
    if failed:
        step.client.post(events.KeysRetried(step.client.id, failed))


@operation
def cancel(step: Step) -> None:
    keys, force = step.held(2), step.chance.random() < 0.3
    step.world.oracle.cause("CancelledError", *keys)
    kill = step.number() if step.chance.random() < 0.3 else None
    step.client.post(events.KeysCancelled(step.client.id, keys, force, kill))
    for key in keys:
        step.client.table[key].status = "cancelled"
    if kill is not None:
        step.ask(requests.AWAIT_KILLS(kill=kill))


# -- actors


@operation
def make_actor(step: Step) -> None:
    recipe = _recipe(step, f"a{step.number()}", [], "actor")
    _submit(step, [recipe])


@operation
def call_actors(step: Step) -> None:
    for key, state in list(step.client.table.items()):
        if state.status == "finished" and key in step.world.actors:
            for _ in range(step.chance.randint(1, 4)):
                step.client.call(step.world.actors[key], step.held(1) if step.chance.random() < 0.2 else ())


# -- what clients share by name


@operation
def lock(step: Step) -> None:
    _lease(step, lambda lease: requests.ACQUIRE_LOCKS(
        names=step.chance.sample(NAMES, step.chance.randint(1, 2)), lease=lease, timeout=step.chance.choice(TIMEOUTS)
    ), requests.RELEASE_LOCKS)  # fmt: skip


@operation
def semaphore(step: Step) -> None:
    _lease(step, lambda lease: requests.ACQUIRE_SEMAPHORE(
        name=step.chance.choice(NAMES), lease=lease, timeout=step.chance.choice(TIMEOUTS), max_leases=MAX_LEASES
    ), requests.RELEASE_SEMAPHORE)  # fmt: skip


def _lease(step: Step, ask: Callable[[int], Any], release: Any) -> None:
    """Ask for a lease, and give it back after a while, maybe before it is granted."""
    lease = step.number()
    step.ask(ask(lease))
    step.client.later(step.chance.choice([0.01, 1.0, 6.0]), step.ask, release(lease=lease))


@operation
def put(step: Step) -> None:
    keys = step.held(1)
    step.ask(
        requests.PUT(
            name=step.chance.choice(NAMES),
            data=b"%d" % step.number(),
            keys=keys,
            lease=step.number(),
            timeout=step.chance.choice(TIMEOUTS),
        )
    )


@operation
def get(step: Step) -> None:
    lease, confirms = step.number(), step.chance.random() < 0.8

    def then(ok: bool, value: Any) -> None:
        if ok and confirms:
            for _, keys in value["items"]:
                step.client.want(keys)
            step.ask(requests.CONFIRM_ITEMS(lease=lease))
        else:
            step.ask(requests.GIVE_UP_ITEMS(lease=lease))

    count = step.chance.randint(1, 3)
    step.ask(
        requests.GET(
            name=step.chance.choice(NAMES), lease=lease, count=count, timeout=step.chance.choice([*TIMEOUTS, None])
        ),
        then,
    )
    if step.chance.random() < 0.2:
        step.client.later(step.chance.random(), step.ask, requests.GIVE_UP_ITEMS(lease=lease))


@operation
def close_queue(step: Step) -> None:
    step.ask(requests.CLOSE_QUEUE(name=step.chance.choice(NAMES)))


@operation
def set_variable(step: Step) -> None:
    keys = step.held(1)
    step.ask(requests.SET_VARIABLE(name=step.chance.choice(NAMES), data=b"%d" % step.number(), keys=keys))


@operation
def get_variable(step: Step) -> None:
    lease = step.number()

    def then(ok: bool, value: Any) -> None:
        if ok:
            step.client.want(value["keys"])
            step.ask(requests.END_READING(lease=lease))

    asked = requests.GET_VARIABLE(name=step.chance.choice(NAMES), lease=lease, timeout=step.chance.choice(TIMEOUTS))
    step.ask(asked, then)


@operation
def delete_variable(step: Step) -> None:
    step.ask(requests.DELETE_VARIABLE(name=step.chance.choice(NAMES)))


@operation
def set_event(step: Step) -> None:
    step.ask(requests.SET_EVENT(name=step.chance.choice(NAMES)))


@operation
def clear_event(step: Step) -> None:
    step.ask(requests.CLEAR_EVENT(name=step.chance.choice(NAMES)))


@operation
def wait_for_event(step: Step) -> None:
    wait = step.number()
    timeout = step.chance.choice([*TIMEOUTS, None])
    step.ask(requests.WAIT_FOR_EVENT(name=step.chance.choice(NAMES), wait=wait, timeout=timeout))
    if step.chance.random() < 0.2:
        step.client.later(step.chance.random(), step.ask, requests.STOP_WAITING(wait=wait))


@operation
def publish(step: Step) -> None:
    datasets = [(step.chance.choice(NAMES), b"%d" % step.number(), step.held(3), {})]
    copies = step.chance.choice([1, 1, 2])
    step.ask(requests.PUBLISH(datasets=datasets, override=step.chance.random() < 0.7, copies=copies))


@operation
def unpublish(step: Step) -> None:
    step.ask(requests.UNPUBLISH(name=step.chance.choice(NAMES)))


@operation
def get_dataset(step: Step) -> None:
    def then(ok: bool, value: Any) -> None:
        if ok:
            step.world.oracle.cause("CancelledError", *value["keys"])  # it may have been unpublished meanwhile
            step.client.want(value["keys"])

    step.ask(requests.GET_DATASET(name=step.chance.choice(NAMES)), then)


@operation
def log_events(step: Step) -> None:
    name = step.chance.choice(NAMES)
    step.ask(step.chance.choice([requests.SUBSCRIBE, requests.UNSUBSCRIBE])(topic=name))
    step.ask(requests.LOG_EVENT(topics=[name], record=(((), 1),)))


@operation
def set_metadata(step: Step) -> None:
    step.ask(requests.SET_METADATA(path=[step.chance.choice(NAMES)], record=(((), 1),)))
    step.ask(requests.GET_METADATA(path=[step.chance.choice(NAMES)]))


# -- the cluster


@operation
def look(step: Step) -> None:
    """Ask what there is."""
    asked = step.chance.choice(
        [requests.STATUS, requests.MEMORY, requests.WHO_HAS, requests.PROCESSING, requests.SIZES]
    )
    step.ask(asked())


@operation
def wait_for_workers(step: Step) -> None:
    step.ask(requests.WAIT_FOR_WORKERS(n=step.chance.randint(0, 6), timeout=step.chance.choice(TIMEOUTS)))


@operation
def run_errand(step: Step) -> None:
    step.ask(requests.ERRAND(operation="versions", arguments={}, names=None, timeout=step.chance.choice(TIMEOUTS)))


@operation
def register_plugin(step: Step) -> None:
    kind, name = step.chance.choice(["worker", "nanny"]), step.chance.choice(NAMES)
    if step.chance.random() < 0.6:
        step.ask(requests.REGISTER_PLUGIN(kind=kind, name=name, call=b"plugin", keys=step.held(1)))
    else:
        step.ask(requests.UNREGISTER_PLUGIN(kind=kind, name=name))


@operation
def replicate(step: Step) -> None:
    step.ask(requests.REPLICATE(keys=step.held(4), n=step.chance.choice([None, 1, 2]), timeout=_long(step)))


@operation
def rebalance(step: Step) -> None:
    step.ask(requests.REBALANCE(keys=step.chance.choice([None, step.held(8)]), timeout=_long(step)))


@operation
def retire_workers(step: Step) -> None:
    chance = step.chance
    there = [worker.address for worker in step.world.workers] + list(step.world.hosts)
    if len(there) > 2:
        step.ask(
            requests.RETIRE_WORKERS(
                workers=chance.sample(there, 1),
                close_workers=chance.random() < 0.8,
                close_hosts=chance.random() < 0.5,
                awaits_end=chance.random() < 0.8,
                grace=chance.choice([0.0, 0.1, 1.0]),
                timeout=_long(step),
            )
        )


@operation
def scale(step: Step) -> None:
    """Have a host keep more workers, or fewer."""
    if not step.world.hosts:
        return
    host = step.chance.choice(list(step.world.hosts.values()))
    if step.chance.random() < 0.6:
        step.ask(requests.ADD_WORKERS(node=host.address, indices=[step.chance.randrange(4)]))
    elif host.workers:
        step.ask(requests.REMOVE_WORKERS(node=host.address, workers=[step.chance.choice(list(host.workers))]))


@operation
def restart(step: Step) -> None:
    step.world.oracle.cause("CancelledError", None)
    step.ask(requests.RESTART(timeout=_long(step), wait_for_workers=step.chance.random() < 0.5))


@operation
def restart_workers(step: Step) -> None:
    workers = [worker.address for worker in step.world.workers]
    if workers:
        step.ask(requests.RESTART_WORKERS(workers=step.chance.sample(workers, 1), timeout=_long(step)))


def _long(step: Step) -> float:
    return step.chance.choice([1.0, 10.0, 30.0])
