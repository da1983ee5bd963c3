"""How progress is shown: a line in a terminal, or a widget in a notebook."""

from __future__ import annotations

import html
import importlib
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from holdfast.cluster.notebook import TEXT_LENGTH_MAX

#: So many groups are shown by themselves.
GROUPS_MAX = 50


class Group(NamedTuple):
    """How far the tasks of a group are."""

    name: str
    done: int
    failed: int
    total: int


class Tally:
    """How far all are.

    Attributes
    ----------
    groups : list of Group
        Those with the most tasks first.
    failures : dict
        Of keys that have failed, the last line of what is said of that.
    """

    def __init__(self) -> None:
        self.groups: list[Group] = []
        self.failures: dict[Any, str] = {}
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long this takes already."""
        return time.monotonic() - self.started

    @property
    def whole(self) -> Group:
        """All groups together."""
        groups = self.groups
        done, failed = sum(group.done for group in groups), sum(group.failed for group in groups)
        return Group("", done, failed, sum(group.total for group in groups))

    def failed_in_words(self) -> Iterator[str]:
        for key, text in self.failures.items():
            yield f"{key!r:.100} failed: {text:.300}"


class Bar(Protocol):
    """Shows how far something is."""

    def show(self, tally: Tally) -> None:
        """It is so far."""

    def end(self, tally: Tally) -> None:
        """It goes no further: all are done, or nobody waits any longer."""


class TextBar:
    """One line in a terminal, that changes; elsewhere nothing.

    Parameters
    ----------
    width
        Of the bar, in characters.
    multi
        Whether to show the groups by themselves too.
    """

    def __init__(self, width: int, *, multi: bool) -> None:
        self._width = width
        self._multi = multi
        self._out = sys.stdout
        self._is_terminal = bool(getattr(self._out, "isatty", lambda: False)())

    def show(self, tally: Tally) -> None:
        if self._is_terminal:
            columns = shutil.get_terminal_size().columns - 1
            self._out.write(f"\r{self._line(tally)[:columns]:<{columns}}")
            self._out.flush()

    def _line(self, tally: Tally) -> str:
        whole = tally.whole
        share = whole.done / whole.total if whole.total else 1.0
        filled = "#" * int(share * self._width)
        parts = [
            f"[{filled:<{self._width}}] {int(share * 100):3d}% {whole.done:,}/{whole.total:,}",
            f"{tally.seconds:.1f} s",
        ]
        if whole.failed:
            parts.append(f"{whole.failed:,} failed")
        if self._multi and len(tally.groups) > 1:
            groups = tally.groups[:GROUPS_MAX]
            parts.append(", ".join(f"{group.name} {group.done:,}/{group.total:,}" for group in groups))
        return " | ".join(parts)

    def end(self, tally: Tally) -> None:
        if self._is_terminal:
            self.show(tally)
            lines = "".join(f"{line}\n" for line in tally.failed_in_words())
            self._out.write(f"\n{lines}")
            self._out.flush()


class NotebookBar:
    """A widget of ipywidgets, if that is there, else a piece of HTML that changes.

    Parameters
    ----------
    multi
        Whether to show a bar for each group, or one for all.
    """

    def __init__(self, *, multi: bool) -> None:
        self._multi = multi
        self._lock = threading.Lock()
        self._tally: Tally | None = None
        self._ended = False
        self._handle: Any = None
        self._widgets: Any = None
        # Neither of the two is needed by what has no notebook, and a notebook need not have both.
        try:
            self._widgets = importlib.import_module("ipywidgets")
        except ImportError:
            try:
                importlib.import_module("IPython.display")
            except ImportError:
                raise RuntimeError("progress in a notebook needs IPython, or ipywidgets") from None
        else:
            self._box = self._widgets.VBox([])
            self._rest_of_box = self._widgets.HTML("")
            self._rows: dict[str, Any] = {}  # of groups, by their names

    def _ipython_display_(self, **kwargs: Any) -> None:
        ipython: Any = importlib.import_module("IPython.display")  # which calls this
        with self._lock:
            if self._widgets is not None:
                ipython.display(self._box)
            elif self._handle is None:
                self._handle = ipython.display(ipython.HTML(self._html()), display_id=True)

    def show(self, tally: Tally) -> None:
        with self._lock:
            self._tally = tally
            if self._widgets is not None:
                self._update(tally)
            elif self._handle is not None:
                ipython: Any = importlib.import_module("IPython.display")  # as there
                self._handle.update(ipython.HTML(self._html()))

    def end(self, tally: Tally) -> None:
        self._ended = True
        self.show(tally)

    def _groups(self, tally: Tally) -> list[Group]:
        return tally.groups[:GROUPS_MAX] if self._multi and tally.groups else [tally.whole]

    def _update(self, tally: Tally) -> None:
        # Widgets stay as long as the kernel does, and so does a page's part of them: each is made once.
        rows = []
        for group in self._groups(tally):
            row = self._rows.get(group.name)
            if row is None:
                widgets = self._widgets
                row = self._rows[group.name] = widgets.HBox([widgets.IntProgress(min=0), widgets.HTML("")])
            bar, words = row.children
            bar.max = max(1, group.total)
            bar.value = group.done
            bar.bar_style = "danger" if group.failed else "success" if group.done == group.total else ""
            words.value = _words(group)
            rows.append(row)
        self._rest_of_box.value = self._rest(tally)
        children = (*rows, self._rest_of_box)
        if children != self._box.children:
            self._box.children = children

    def _html(self) -> str:
        tally = self._tally
        if tally is None:
            return "<div>…</div>"
        rows = "".join(
            f'<tr><td><progress value="{group.done}" max="{max(1, group.total)}"></progress></td>'
            f"<td>{_words(group)}</td></tr>"
            for group in self._groups(tally)
        )
        return f"<div><table>{rows}</table>{self._rest(tally)}</div>"

    def _rest(self, tally: Tally) -> str:
        failed = "".join(f"<br/>{html.escape(line)}" for line in tally.failed_in_words())
        return f"{'done in ' if self._ended else ''}{tally.seconds:.1f} s{failed}"

    def __repr__(self) -> str:
        whole = Group("", 0, 0, 0) if self._tally is None else self._tally.whole
        return f"<progress: {whole.done:,}/{whole.total:,}>"


def _words(group: Group) -> str:
    failed = f", {group.failed:,} failed" if group.failed else ""
    return f"{html.escape(group.name[:TEXT_LENGTH_MAX])} {group.done:,}/{group.total:,}{failed}"
