"""The `bdlit` command in processes of its own, forked from one that has Lightning imported.

A user's process imports Lightning and transformers first, which takes seconds; the tests that
need a whole process (its exit code, its signals, its limits, its files of W&B) do so once.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["bdlit.cli.lightning", "bdlit.victims", "bdlit.data"])


@dataclass(frozen=True)
class Answer:
    """What a finished command left: its exit code and what it printed."""

    returncode: int
    stdout: str
    stderr: str


class Running:
    """A command that runs; `process` takes signals."""

    def __init__(
        self,
        arguments: list[str],
        cwd: Path,
        environment: Mapping[str, str],
        before: Callable[[], None] | None,
    ) -> None:
        self._printed = [Path(mkdtemp()) / name for name in ("stdout", "stderr")]
        self.process = _context.Process(
            target=_run, args=(arguments, cwd, dict(environment), before, self._printed)
        )
        self.process.start()

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGINT)

    def answer(self, timeout: float = 1200) -> Answer:
        """Wait for the end."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"still running after {timeout} s"
        return Answer(self.process.exitcode, *(file.read_text() for file in self._printed))


def launch(
    *arguments: object,
    cwd: object = ".",
    before: Callable[[], None] | None = None,
    **environment: str,
) -> Running:
    """Start `bdlit ARGUMENTS`; `before`, a function of a module, is called first."""
    own = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    return Running([*map(str, arguments)], Path(str(cwd)), {**own, **environment}, before)


def bdlit(*arguments: object, **options: object) -> Answer:
    """Run the command to its end."""
    return launch(*arguments, **options).answer()  # type: ignore[arg-type]


def _run(
    arguments: list[str],
    cwd: Path,
    environment: dict[str, str],
    before: Callable[[], None] | None,
    printed: list[Path],
) -> None:
    for descriptor, file in zip((1, 2), printed, strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    # A shell's background job ignores Ctrl-C, and we would have it from there.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if before is not None:
        before()
    from bdlit.cli import main

    try:
        sys.exit(main(arguments))
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out; W&B ends its runs there
