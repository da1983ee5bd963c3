"""Which versions the processes of a cluster have: see `Client.get_versions`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from holdfast.client.core.core import Core
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Elsewhere, Operation
from holdfast.client.operations.errands import have_done
from holdfast.client.packing.keys import check_text
from holdfast.cluster import protocol, versions
from holdfast.cluster.protocol.errands import VERSIONS
from holdfast.cluster.protocol.limits import MAX_PACKAGES


def get_versions(core: Core, check: bool, packages: Iterable[str] | str | None) -> Operation[dict[str, Any]]:
    """The versions that the scheduler, the workers and this process have."""
    names = [packages] if isinstance(packages, str) else list(packages or ())
    if len(names) > MAX_PACKAGES:
        raise ValueError(f"{len(names):,} packages are more than can be asked for together: up to {MAX_PACKAGES}")
    for name in names:
        if not isinstance(name, str) or not name:
            raise TypeError(f"packages are named by texts, not by {name!r:.100}")
        check_text("the package", name)
    here: dict[str, Any] = yield Elsewhere(lambda: versions.describe(names))
    scheduler = yield Ask(core.session, protocol.requests.VERSIONS, packages=names)
    outcomes = yield from have_done(core, VERSIONS, packages=names)
    # One that has left meanwhile has none any more.
    workers = {address: outcome.value for address, outcome in outcomes.items() if outcome.error is None}
    if check:
        of_workers = {address: found["packages"] for address, found in workers.items()}
        table = versions.differences(here["packages"], scheduler["packages"], of_workers)
        if table is not None:
            raise ValueError(f"the processes of this cluster have different versions:\n{table}")
    return {"scheduler": scheduler, "workers": workers, "client": here}
