"""What control groups allow, on pretended hosts of all kinds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from holdfast.objectstore.system.control_groups import (
    available_memory,
    cpu_quota,
    memory_kills,
    memory_limit,
    tightest_memory_limit,
)
from holdfast.objectstore.system.mounts import Mount, memory_kind, parse

GB = 10**9
V1_NO_LIMIT = "9223372036854771712"
V2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1_MEMORY = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"
V1_CPU = "36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 master:2 - cgroup cgroup rw,cpu,cpuacct"


class Host:
    """A host: its tables, and the files of its groups by path."""

    def __init__(self, folder: Path, groups: str, mounts: str, files: Mapping[str, object]) -> None:
        self.root = str(folder)
        for name, content in {
            "proc/self/cgroup": groups,
            "proc/self/mountinfo": "22 27 0:21 / /proc rw - proc proc rw\nnonsense\n" + mounts,
            **files,
        }.items():
            path = folder / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")


def v2(limit: object, used: int = 0, cache: int = 0, **more: object) -> dict[str, object]:
    stat = f"anon 5\nfile 6\ninactive_file {cache}\nactive_file 7"
    return {"memory.max": limit, "memory.current": used, "memory.stat": stat, **more}


def v1(limit: object, used: int = 0, cache: int = 0, above: object = V1_NO_LIMIT) -> dict[str, object]:
    stat = f"cache 8\ninactive_file 3\nhierarchical_memory_limit {above}\ntotal_inactive_file {cache}"
    return {"memory.limit_in_bytes": limit, "memory.usage_in_bytes": used, "memory.stat": stat}


def at(folder: str, files: Mapping[str, object]) -> dict[str, object]:
    return {f"{folder}/{name}": value for name, value in files.items()}


def test_a_limit_on_a_group_in_the_middle_counts(tmp_path: Path) -> None:
    # As Slurm and systemd do: the group of the process itself has none.
    top = "/sys/fs/cgroup"
    host = Host(
        tmp_path,
        "0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0",
        V2,
        {
            **at(f"{top}/system.slice", v2("max", 40 * GB)),
            **at(f"{top}/system.slice/slurmstepd.scope/job_7", v2(4 * GB, 3 * GB, GB // 2)),
            **at(f"{top}/system.slice/slurmstepd.scope/job_7/step_0/user", v2(6 * GB, 2 * GB)),
            **at(f"{top}/system.slice/slurmstepd.scope/job_7/step_0/user/task_0", v2("max", GB)),
        },
    )
    assert memory_limit(host.root) == 4 * GB
    assert tightest_memory_limit(host.root) == (
        4 * GB,
        f"{host.root}{top}/system.slice/slurmstepd.scope/job_7/memory.max",
    )
    assert available_memory(host.root) == 4 * GB - 3 * GB + GB // 2


def test_kills_for_want_of_memory_are_counted_by_group(tmp_path: Path) -> None:
    events = "low 0\nhigh 3\nmax 7\noom 2\noom_kill {}\noom_group_kill 0"
    files = {
        **at("/sys/fs/cgroup/a", v2(4 * GB, **{"memory.events": events.format(5)})),
        **at("/sys/fs/cgroup/a/b", v2("max", **{"memory.events": events.format(2)})),
    }
    top = f"{tmp_path}/sys/fs/cgroup"
    assert memory_kills(Host(tmp_path, "0::/a/b", V2, files).root) == {f"{top}/a": 5, f"{top}/a/b": 2}


def test_kills_are_counted_in_groups_of_version_1_too(tmp_path: Path) -> None:
    control = {"memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3"}
    files = at("/sys/fs/cgroup/memory/job", {**v1(2 * GB), **control})
    host = Host(tmp_path, "4:memory:/job", V1_MEMORY, files)
    assert memory_kills(host.root) == {f"{tmp_path}/sys/fs/cgroup/memory/job": 3}
    assert tightest_memory_limit(host.root) == (
        2 * GB,
        f"{tmp_path}/sys/fs/cgroup/memory/job/memory.limit_in_bytes",
    )


def test_without_groups_there_is_no_limit_and_no_kill(tmp_path: Path) -> None:
    host = Host(tmp_path, "0::/", V2, {})
    assert tightest_memory_limit(host.root) is None
    assert memory_kills(host.root) == {}


def test_the_level_with_the_least_left_counts_for_what_is_available(tmp_path: Path) -> None:
    host = Host(
        tmp_path,
        "0::/a/b",
        V2,
        {
            **at("/sys/fs/cgroup/a", v2(10 * GB, 9 * GB, 500)),  # others in it use nearly all
            **at("/sys/fs/cgroup/a/b", v2(4 * GB, GB)),
        },
    )
    assert memory_limit(host.root) == 4 * GB
    assert available_memory(host.root) == GB + 500


def test_what_only_slows_down_counts_too_and_a_full_group_has_nothing_left(tmp_path: Path) -> None:
    host = Host(tmp_path, "0::/a", V2, at("/sys/fs/cgroup/a", {**v2(8 * GB, 5 * GB), "memory.high": 4 * GB}))
    assert memory_limit(host.root) == 4 * GB
    assert available_memory(host.root) == 0


@pytest.mark.parametrize(
    "groups", ["4:memory:/slurm/uid_1/job_2/task", "4:memory,hugetlb:/slurm/uid_1/job_2/task\n0::/x"]
)
def test_version_1_has_a_hierarchy_of_memory(tmp_path: Path, groups: str) -> None:
    mounts = V1_MEMORY.replace("rw,memory", "rw,memory,hugetlb") if "hugetlb" in groups else V1_MEMORY
    unified = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"
    top = "/sys/fs/cgroup/memory"
    host = Host(
        tmp_path,
        f"9:name=systemd:/memory\n{groups}\n2:cpuacct:/",
        f"{mounts}\n{unified}\n40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd",
        {
            **at(top, v1(V1_NO_LIMIT, 50 * GB)),
            **at(f"{top}/slurm/uid_1", v1(3 * GB, 2 * GB, 7)),
            **at(f"{top}/slurm/uid_1/job_2/task", v1(V1_NO_LIMIT, GB)),
            **at("/sys/fs/cgroup/unified/x", {"cgroup.procs": 1}),
        },
    )
    assert memory_limit(host.root) == 3 * GB
    assert available_memory(host.root) == GB + 7


def test_a_container_sees_its_part_only(tmp_path: Path) -> None:
    # Version 1 and no namespace: the path is the host's, the mount shows the container's group and what is in it.
    mount = V1_MEMORY.replace("0:32 / ", "0:32 /docker/4a5b ")
    host = Host(
        tmp_path,
        "4:memory:/docker/4a5b/inner",
        mount,
        {
            **at("/sys/fs/cgroup/memory", v1(2 * GB, GB, above=GB)),  # something above has less
            **at("/sys/fs/cgroup/memory/inner", v1(V1_NO_LIMIT, 5, above=GB)),
            **at("/sys/fs/cgroup/memory/docker/4a5b/inner", v1(1)),  # another container in it: not this process's
        },
    )
    assert memory_limit(host.root) == GB
    assert available_memory(host.root) == GB


@pytest.mark.parametrize(
    ("group", "root", "expected"),
    [
        ("/", "/", 5),  # a namespace of its own, where it is at the top
        ("/in/ner", "/", 3),
        ("/in/ner", "/in", 5),  # the mount shows less than the namespace has
        ("/in/ner", "/out", 5),  # or something else: then the top is all that can be looked at
        ("/in/ner", "/i", 5),
        ("/../beside", "/", 5),  # beside the namespace that the mount was made in
        ("/../beside", "/..", 2),  # and in what the outer one has mounted
        ("/", "/../..", 5),
        ("/gone (deleted)", "/", 5),
    ],
)
def test_where_the_group_is_seen_from(tmp_path: Path, group: str, root: str, expected: int) -> None:
    top = "/sys/fs/cgroup"
    host = Host(
        tmp_path,
        f"0::{group}",
        V2.replace("0:28 / ", f"0:28 {root} "),
        {
            **at(top, v2(5 * GB)),
            **at(f"{top}/in", v2("max")),
            **at(f"{top}/in/ner", v2(3 * GB)),
            **at(f"{top}/ner", v2(6 * GB)),
            **at(f"{top}/beside", v2(2 * GB)),
        },
    )
    assert memory_limit(host.root) == expected * GB


def test_strange_names_are_read_as_they_are(tmp_path: Path) -> None:
    mount = V2.replace("/sys/fs/cgroup", r"/mnt/my\040groups\134x")
    host = Host(tmp_path, r"0::/a:b/c\040d", mount, at(r"/mnt/my groups\x/a:b/c\040d", v2(GB)))
    assert memory_limit(host.root) == GB


@pytest.mark.parametrize("content", ["", "max", "-1", "a lot", "0x10", V1_NO_LIMIT])
def test_what_is_no_limit(tmp_path: Path, content: str) -> None:
    host = Host(tmp_path, "0::/a\n4:memory:/b", f"{V2}\n{V1_MEMORY}", at("/sys/fs/cgroup/a", v2(content)))
    assert memory_limit(host.root) is None
    assert available_memory(host.root) is None
    assert cpu_quota(host.root) is None


def test_a_host_without_control_groups_has_no_limits(tmp_path: Path) -> None:
    assert memory_limit(str(tmp_path)) is None
    host = Host(tmp_path, "", "", {})
    assert (memory_limit(host.root), available_memory(host.root), cpu_quota(host.root)) == (None, None, None)


def test_the_least_quota_of_processor_time_counts(tmp_path: Path) -> None:
    files = {
        "/sys/fs/cgroup/a/cpu.max": "250000 100000",
        "/sys/fs/cgroup/a/b/cpu.max": "max 100000",
        "/sys/fs/cgroup/a/b/c/cpu.max": "400000 100000",
    }
    assert cpu_quota(Host(tmp_path, "0::/a/b/c", V2, files).root) == 2.5


def test_version_1_has_quotas_of_processor_time_too(tmp_path: Path) -> None:
    top = "/sys/fs/cgroup/cpu,cpuacct"
    files = {
        **at(top, {"cpu.cfs_quota_us": -1, "cpu.cfs_period_us": 100000}),
        **at(f"{top}/a", {"cpu.cfs_quota_us": 150000, "cpu.cfs_period_us": 100000}),
        **at(f"{top}/a/b", {"cpu.cfs_quota_us": -1, "cpu.cfs_period_us": 100000}),
    }
    assert cpu_quota(Host(tmp_path, "3:cpu,cpuacct:/a/b\n5:cpuset:/", V1_CPU, files).root) == 1.5


def test_a_table_of_mounts_is_read_with_all_that_may_be_in_it() -> None:
    line = r"36 35 98:0 /ro\011ot /mnt\0402 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue"
    assert parse(f"{line}\n\nhalf of a line 1:2\n") == [
        Mount("98:0", "/ro\tot", "/mnt 2", "ext3", ["rw", "errors=continue"])
    ]


def test_memory_is_known_from_disk() -> None:
    assert memory_kind("/dev/shm") == "tmpfs"
    assert memory_kind("/dev/shm/not/yet/there") == "tmpfs"
    assert memory_kind("/proc") is None
