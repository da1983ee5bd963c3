"""Objects are moved while several processes read them: every byte is held against a checksum."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import xxhash

from holdfast.objectstore import Store, StoreServer

MIB = 1 << 20
ROUNDS = 20


@pytest.fixture
def server() -> Iterator[StoreServer]:
    """A store that moves nothing to disk: what is in the way can't go but to another place."""
    with StoreServer(32 * MIB, spill=False) as server:
        yield server


def test_readers_race_with_moves_and_never_see_another_objects_bytes(
    server: StoreServer,
    store: Store,
    child: Callable[..., subprocess.Popen[str]],
    check: Callable[[], None],
    wait_until: Callable[..., object],
) -> None:
    """What is moved leaves its place to what is written there at once."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    readers = [child("read_at_random", server.socket_path, seed + number) for number in range(2)]
    for _ in range(40):
        value = rng.integers(0, 256, rng.choice([300_000, 400_000]), "u1")
        kept = store.put(value)
        for reader in readers:
            assert reader.stdin is not None
            reader.stdin.write(f"{kept} {xxhash.xxh3_64_intdigest(value)}\n")
            reader.stdin.flush()
    for number in range(ROUNDS):
        fillers = []
        while server.stats()["free"] > 3 * MIB:
            fillers.append(store.put(np.full(rng.choice([300_000, 700_000]), number, "u1"), timeout=60))
        store.delete(fillers[::2])
        large = store.put(np.full(5 * MIB, number, "u1"), timeout=60)
        for object_id in [large, *fillers[1::2]]:
            assert (store.get(object_id) == number).all()
        check()
        store.delete([large, *fillers])
    for reader in readers:
        assert reader.stdin is not None
        assert reader.stdout is not None
        reader.stdin.close()
        in_arena, in_files = map(int, reader.stdout.readline().split())
        assert in_arena >= 300
        assert in_files == 0
        assert reader.wait(20) == 0
    print(server.stats()["moved_total_nbytes"], "bytes were moved")
    assert server.stats()["moved_total_nbytes"] > MIB
    wait_until(lambda: server.stats()["pins"] == 0)
    check()
