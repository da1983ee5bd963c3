"""Environments of peers in which another program stands where their Python would."""

from __future__ import annotations

from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.peers.environments import REQUIREMENTS


def pretend_environment(home: Path, peer: str, metric: str, unit: str, status: int = 0) -> None:
    """Make a finished environment, whose Python prints one figure and ends, or fails with something to say."""
    python = home / peer / "bin" / "python"
    python.parent.mkdir(parents=True)
    says = Figure(peer, metric, 0.5, unit).to_json() if status == 0 else "no such peer here"
    python.write_text(f"#!/usr/bin/env bash\necho '{says}' >&{1 if status == 0 else 2}\nexit {status}\n")
    python.chmod(0o755)
    (home / peer / "requirements.txt").write_text("\n".join(REQUIREMENTS[peer]))
