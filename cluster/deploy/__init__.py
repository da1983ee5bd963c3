"""Starting whole clusters on one machine."""

from __future__ import annotations

from holdfast.cluster.deploy.local import LocalCluster

__all__ = ["LocalCluster"]
