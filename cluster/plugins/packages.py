"""Packages that are installed on workers."""

from __future__ import annotations

import abc
import fcntl
import importlib
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from holdfast.cluster.plugins.base import WorkerPlugin

logger = logging.getLogger(__name__)

#: How much of what an installer has said an error shows.
SAID_LENGTH = 4_000


class PackageInstall(WorkerPlugin, abc.ABC):
    """Installs packages on every worker, also on those that come later. A subclass says how.

    Workers that share a Python environment install one after the other, and only the first of them has anything to do.

    Parameters
    ----------
    packages : list of str
        What is installed.
    restart_workers : bool
        Whether each worker starts again once that is done. It is needed only if something that was imported before is
        replaced.

    Examples
    --------
    >>> from holdfast import PackageInstall
    >>> class Nothing(PackageInstall):
    ...     INSTALLER = "nobody"
    ...     def install(self):
    ...         pass
    >>> client.register_plugin(Nothing(["nothing"]))
    {'tcp://...': {'status': 'OK'}, 'tcp://...': {'status': 'OK'}}
    """

    #: Names what installs.
    INSTALLER: str
    #: Installers wait for networks, and for other workers that install.
    setup_timeout = 1800.0

    def __init__(self, packages: Sequence[str], restart_workers: bool = False) -> None:
        if isinstance(packages, str):
            raise TypeError(f"packages is a list of what is to be installed, not the text {packages!r:.200}")
        self.packages = list(packages)
        self.restart_workers = restart_workers
        self.name = f"{self.INSTALLER}-install-{blake2b(repr(self._identity()).encode(), digest_size=8).hexdigest()}"

    def _identity(self) -> tuple[Any, ...]:
        return tuple(self.packages), self.restart_workers

    @abc.abstractmethod
    def install(self) -> None:
        """Install the packages in this environment.

        Raises
        ------
        RuntimeError
            It can't be done; says why.

        Examples
        --------
        >>> import pathlib
        >>> class Copied(PackageInstall):
        ...     INSTALLER = "copy"
        ...     def install(self):
        ...         for package in self.packages:
        ...             if not pathlib.Path(package).exists():
        ...                 raise RuntimeError(f"there is no package {package}")
        >>> client.register_plugin(Copied(["/"]))
        {'tcp://...': {'status': 'OK'}, 'tcp://...': {'status': 'OK'}}
        """

    def setup(self, worker: Any) -> None:
        """Install, unless another worker of this environment has done it."""
        environment = blake2b(f"{sys.prefix} {os.getuid()}".encode(), digest_size=8).hexdigest()
        with open(Path(tempfile.gettempdir(), f"holdfast-install-{environment}.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = Path(worker.shared_directory, f"installed-{self.name}")
            if not done.exists():
                logger.info("%s installs %s", self.INSTALLER, ", ".join(self.packages))
                self.install()
                done.touch()
        importlib.invalidate_caches()
        if self.restart_workers and worker.started < done.stat().st_mtime:
            worker.restart(f"{self.INSTALLER} has installed {', '.join(self.packages)}")


class PipInstall(PackageInstall):
    """Installs packages with pip on every worker, also on those that come later.

    Parameters
    ----------
    packages : list of str
        As for ``pip install``.
    pip_options : list of str, optional
        Further options, such as ``["--upgrade"]``.
    restart_workers : bool
        As for `PackageInstall`.

    Examples
    --------
    >>> from holdfast import PipInstall
    >>> PipInstall(["scikit-learn"], pip_options=["--upgrade"]).packages
    ['scikit-learn']
    """

    INSTALLER = "pip"

    def __init__(
        self, packages: Sequence[str], pip_options: Sequence[str] | None = None, restart_workers: bool = False
    ) -> None:
        self.pip_options = list(pip_options or ())
        super().__init__(packages, restart_workers)

    def _identity(self) -> tuple[Any, ...]:
        return (*super()._identity(), tuple(self.pip_options))

    def install(self) -> None:
        """Run pip."""
        command = [sys.executable, "-m", "pip", "install", *self.pip_options, *self.packages]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            said = (done.stdout + done.stderr).strip()[-SAID_LENGTH:]
            raise RuntimeError(f"'pip install {' '.join(self.packages)}' has failed: {said}")
