"""One folder per run: a second run never touches what a first one wrote."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

_SHARED = "BDLIT_RUN_DIR"


def new_run_directory(root: str | Path, name: str) -> Path:
    """Make and return a folder that no other run has: `<root>/<name>-<time>[-<n>]`.

    Processes that Lightning starts for the other ranks inherit the choice of the first one
    through the environment. Processes started from outside (torchrun, SLURM) agree through the
    identity of their job.
    """
    process, _, chosen = os.environ.get(_SHARED, "").partition(":")
    if chosen and process != str(os.getpid()):
        return Path(chosen)
    job = os.environ.get("TORCHELASTIC_RUN_ID") or os.environ.get("SLURM_JOB_ID")
    if job and job != "none" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        directory = Path(root) / f"{name}-{job}-{restart}"
        directory.mkdir(parents=True, exist_ok=True)
    else:
        directory = first_free(Path(root) / f"{name}-{datetime.now():%Y%m%d-%H%M%S}")
    os.environ[_SHARED] = f"{os.getpid()}:{directory}"
    return directory


def first_free(wanted: Path) -> Path:
    """Make and return `wanted`, or `<wanted>-2`, `-3`, ... where it exists already."""
    directory, number = wanted, 1
    while True:
        try:
            directory.mkdir(parents=True)
            return directory
        except FileExistsError:
            number += 1
            directory = wanted.with_name(f"{wanted.name}-{number}")
