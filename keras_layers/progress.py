"""A progress bar for what takes a while."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: Seconds that pass before a bar appears.
PATIENCE = 5.0


@contextmanager
def progress(text: str, steps: int) -> Iterator[Callable[[], None]]:
    """Gives a function to call after each step; from `PATIENCE` on a bar shows them, if stderr is a terminal.

    Without the package rich, which comes with the converter, there is no bar.
    """
    start = time.monotonic()
    bar: Any = None
    task: Any = None
    count = 0

    def done() -> None:
        nonlocal bar, task, count
        count += 1
        if bar is None and time.monotonic() - start > PATIENCE and sys.stderr.isatty():
            bar = _bar()
            task = bar.add_task(text, total=steps)
            bar.start()
        if bar is not None:
            bar.update(task, completed=count)

    try:
        yield done
    finally:
        if bar is not None:
            bar.stop()


def _bar() -> Any:
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        return _NoBar()
    return Progress(console=Console(stderr=True), transient=True)


class _NoBar:
    """Takes what a bar of rich takes, and shows nothing."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def add_task(self, text: str, total: int) -> int:
        return 0

    def update(self, task: int, completed: int) -> None: ...
