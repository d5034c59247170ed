"""A bar for long work, shown where a person is looking."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Tell(Protocol):
    """Takes work done and all work, in bytes or any other unit, and new words beside the bar."""

    def __call__(self, done: int, total: int, words: str | None = None, /) -> None:
        """Show it."""
        ...


@contextmanager
def progress(words: str) -> Iterator[Tell]:
    """Yield what to call as work goes on.

    Args:
        words: What is done, beside the bar.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task(words, total=None)

        def tell(done: int, total: int, words: str | None = None, /) -> None:
            bar.update(task, completed=done, total=total, description=words)

        yield tell
