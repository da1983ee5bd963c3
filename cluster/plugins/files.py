"""Files and folders of a client's that workers can import."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import shutil
import sys
import tempfile
import threading
import zipfile
import zipimport
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from holdfast.cluster.plugins.base import WorkerPlugin

#: Workers of one process have one table of modules: one of them at a time changes it.
_changing = threading.Lock()
#: What a folder is sent without.
SKIPPED_WORDS = (".git", ".github", ".pytest_cache", "tests", "docs")
#: Archives that Python imports from.
_ARCHIVES = (".zip", ".egg", ".whl", ".pyz")


class UploadFile(WorkerPlugin):
    """Has a file on every worker, and imports it there: a module, or an archive of modules.

    It lies in the worker's ``local_directory``, which is on Python's path. Uploading a file of the same name again
    replaces it and reloads its modules.

    Parameters
    ----------
    filepath : str or path
        A ``.py`` file, a ``.zip``, ``.egg`` or ``.whl`` archive, or any other file. It is read now.
    load : bool
        Whether to import it, if it can be.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from holdfast import UploadFile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "constants_of_mine.py")
    >>> path.write_text("ANSWER = 42")
    11
    >>> client.register_plugin(UploadFile(path))
    {'tcp://...': {'status': 'OK'}, 'tcp://...': {'status': 'OK'}}
    >>> client.submit(lambda: __import__("constants_of_mine").ANSWER).result()
    42
    """

    def __init__(self, filepath: str | os.PathLike[str], load: bool = True) -> None:
        path = Path(filepath)
        self.data = path.read_bytes()
        self.filename = path.name
        self.load = load
        self.name = f"upload-file-{path.name}"

    def setup(self, worker: Any) -> None:
        """Write the file, and import it."""
        with _changing:
            self._put(worker)

    def _put(self, worker: Any) -> None:
        path = Path(worker.local_directory, self.filename)
        _write(path, self.data)
        if not self.load:
            return
        is_archive = path.suffix in _ARCHIVES
        _put_on_path(path if is_archive else path.parent)
        if is_archive:
            for name in _modules_below(path):
                del sys.modules[name]
            zipimport._zip_directory_cache.pop(str(path), None)  # type: ignore[attr-defined]
            sys.path_importer_cache.pop(str(path), None)
        importlib.invalidate_caches()
        if path.suffix == ".py":
            _forget_bytecode(path)
            name = path.stem
            if name in sys.modules and _is_below(sys.modules[name], path):
                importlib.reload(sys.modules[name])
            else:
                sys.modules.pop(name, None)
                importlib.import_module(name)
        worker.forget_functions()

    def teardown(self, worker: Any) -> None:
        """Python looks for no module in the file any more."""
        path = Path(worker.local_directory, self.filename)
        with _changing:  # a worker of the same process may import it just now
            if path.suffix in _ARCHIVES:
                _take_off_path(path)
            path.unlink(missing_ok=True)


class UploadDirectory(WorkerPlugin):
    """Has a folder on every worker.

    It lies in the worker's ``local_directory`` under its own name. Uploading a folder of the same name again replaces
    it, and its modules are imported anew.

    Parameters
    ----------
    path : str or path
        The folder. It is read now.
    restart_workers : bool
        Taken for compatibility: what has been imported of the folder is forgotten in any case.
    update_path : bool
        Whether the folder is put on Python's path, so that what is in it can be imported. Without, what is beside it
        is on the path, so that the folder itself can be imported as a package.
    skip_words : iterable of str
        Files and folders of these names are left out.
    skip : iterable of callable
        ``skip(path)``: whether to leave out a file.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from holdfast import UploadDirectory
    >>> folder = pathlib.Path(tempfile.mkdtemp(), "package_of_mine")
    >>> folder.mkdir()
    >>> (folder / "__init__.py").write_text("ANSWER = 42")
    11
    >>> client.register_plugin(UploadDirectory(folder))
    {'tcp://...': {'status': 'OK'}, 'tcp://...': {'status': 'OK'}}
    >>> client.submit(lambda: __import__("package_of_mine").ANSWER).result()
    42
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        restart_workers: bool = False,
        update_path: bool = False,
        skip_words: Iterable[str] = SKIPPED_WORDS,
        skip: Iterable[Callable[[str], bool]] = (lambda path: path.endswith(".pyc"),),
    ) -> None:
        folder = Path(path).resolve()
        if not folder.is_dir():
            raise NotADirectoryError(f"{folder} is no folder")
        self.folder = folder.name
        self.update_path = update_path
        self.data = _zipped(folder, frozenset(skip_words), tuple(skip))
        self.name = f"upload-directory-{folder.name}"

    def setup(self, worker: Any) -> None:
        """Write the folder, and forget what was imported of it before."""
        with _changing:
            self._put(worker)

    def _put(self, worker: Any) -> None:
        beside = Path(worker.local_directory)
        folder = beside / self.folder
        for name in _modules_below(folder):
            del sys.modules[name]
        shutil.rmtree(folder, ignore_errors=True)
        with zipfile.ZipFile(io.BytesIO(self.data)) as archive:
            archive.extractall(folder)
        _put_on_path(folder if self.update_path else beside)
        importlib.invalidate_caches()
        worker.forget_functions()

    def teardown(self, worker: Any) -> None:
        """The folder goes."""
        folder = Path(worker.local_directory, self.folder)
        with _changing:
            _take_off_path(folder)
            shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    """Write a file that is there as a whole, or not at all."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
    os.replace(file.name, path)


def _zipped(folder: Path, skip_words: frozenset[str], skip: tuple[Callable[[str], bool], ...]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for where, folders, files in os.walk(folder):
            folders[:] = [name for name in folders if name not in skip_words]
            for name in files:
                path = os.path.join(where, name)
                if name not in skip_words and not any(left_out(path) for left_out in skip):
                    archive.write(path, os.path.relpath(path, folder))
    return packed.getvalue()


def _put_on_path(path: Path) -> None:
    if str(path) not in sys.path:
        sys.path.insert(0, str(path))


def _take_off_path(path: Path) -> None:
    with contextlib.suppress(ValueError):
        sys.path.remove(str(path))


def _modules_below(path: Path) -> list[str]:
    """The modules that were imported from a file or a folder."""
    return [name for name, module in list(sys.modules.items()) if _is_below(module, path)]


def _is_below(module: Any, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and (file == str(path) or file.startswith(f"{path}{os.sep}"))


def _forget_bytecode(path: Path) -> None:
    """Two files of one size that were written in the same second look alike to Python."""
    with contextlib.suppress(NotImplementedError, OSError):
        os.unlink(importlib.util.cache_from_source(str(path)))
