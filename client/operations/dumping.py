"""The state of a whole cluster, written into a file for those that look for a fault."""

from __future__ import annotations

import gzip
from collections.abc import Collection
from typing import Any

import msgpack

from holdfast.client.core.core import Core
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Elsewhere, Operation
from holdfast.client.operations import diagnostics
from holdfast.client.operations.errands import have_done
from holdfast.client.operations.records import get_events
from holdfast.cluster import protocol
from holdfast.cluster.protocol.errands import VERSIONS

_FORMATS = {"msgpack": ".msgpack.gz", "yaml": ".yaml"}


def dump_cluster_state(
    core: Core,
    filename: Any,
    write_from_scheduler: bool | None,
    exclude: Collection[str],
    format: str,
    storage_options: dict[str, Any],
) -> Operation[None]:
    """See `Client.dump_cluster_state`."""
    if format not in _FORMATS:
        raise ValueError(f"format={format!r:.100} is unknown: a dump is written as 'msgpack' or 'yaml'")
    if write_from_scheduler:
        raise ValueError(
            "the scheduler writes no files, since all of the cluster would wait for that: leave write_from_scheduler "
            "out, and this client writes the dump, also to a URL such as 's3://bucket/dump'"
        )
    names = frozenset([exclude] if isinstance(exclude, str) else exclude)
    path = str(filename)
    if not path.endswith(_FORMATS[format]):
        path += _FORMATS[format]
    if storage_options and "://" not in path:
        raise TypeError(f"{', '.join(storage_options)}: options are for a URL, and {path!r:.200} is a file")
    state = yield from cluster_state(core, names)
    yield Elsewhere(lambda: _write(_plain(state, names), path, format, storage_options))


def cluster_state(core: Core, exclude: frozenset[str]) -> Operation[dict[str, Any]]:
    """All that scheduler and workers tell of themselves."""
    info = yield Ask(core.session, protocol.requests.INFO, n=None)
    status = yield Ask(core.session, protocol.requests.STATUS)
    known = yield Ask(core.session, protocol.requests.DUMP, run_spec="run_spec" not in exclude)
    processing = yield Ask(core.session, protocol.requests.PROCESSING, workers=None)
    logs = yield Ask(core.session, protocol.requests.SCHEDULER_LOGS, n=None)
    workers = info.pop("workers")
    info.pop("places", None)
    tasks = {_text(task["key"]): task for task in known.pop("tasks")}
    scheduler = {**info, **known, "tasks": tasks, "hosts": status["nodes"], "logs": logs["lines"]}
    if "events" not in exclude:
        scheduler["events"] = yield from get_events(core, None)
    stacks = yield from diagnostics.call_stack(core, None, None)
    logs_of = yield from diagnostics.worker_logs(core, None, None, False)
    versions = yield from have_done(core, VERSIONS, None, diagnostics.ANSWER_SECONDS)
    return {
        "scheduler": scheduler,
        "workers": {
            address: {
                **worker,
                "processing": processing.get(address, ()),
                "call_stack": stacks.get(address, {}),
                "logs": logs_of.get(address, ()),
            }
            for address, worker in workers.items()
        },
        "versions": {
            "scheduler": {"holdfast": info.get("version")},
            "workers": {address: outcome.value for address, outcome in versions.items() if outcome.error is None},
        },
    }


def _text(key: Any) -> str:
    return key if isinstance(key, str) else repr(key)


def _plain(value: Any, exclude: frozenset[str]) -> Any:
    """Data that both formats can hold, without the fields of these names."""
    if isinstance(value, dict):
        return {_text(name): _plain(item, exclude) for name, item in value.items() if name not in exclude}
    if isinstance(value, (list, tuple)):
        return [_plain(item, exclude) for item in value]
    if isinstance(value, memoryview):
        return bytes(value)
    return value if value is None or isinstance(value, (bool, int, float, str, bytes)) else repr(value)


def _write(state: Any, path: str, format: str, storage_options: dict[str, Any]) -> None:
    import fsspec  # which takes a while to import, and few write dumps

    with fsspec.open(path, "wb", **storage_options) as file:
        if format == "msgpack":
            with gzip.open(file, "wb") as packed:
                msgpack.pack(state, packed)
        else:
            import yaml

            text = yaml.dump(state, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper))
            file.write(text.encode())
