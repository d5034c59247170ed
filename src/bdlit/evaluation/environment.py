"""The circumstances of a measurement: time, versions, commit, memory."""

from __future__ import annotations

import re
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

_PACKAGES = (
    *("bdlit", "torch", "lightning", "transformers", "peft", "torchmetrics", "datasets"),
    "lm_eval",
)


def circumstances() -> dict[str, Any]:
    """Return what a record says of when, with what and in how much memory it was made."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "commit": commit(),
        "peak_memory": peak_memory(),
    }


@cache
def versions() -> dict[str, str]:
    """Return the installed versions of the libraries that decide numbers."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def commit() -> str | None:
    """Return the git commit of the working directory, if it is in a repository."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def begin_peak_memory() -> None:
    """Let `peak_memory` tell of what follows, where the system can forget a peak (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Return the peak resident memory of this process, in bytes: so far, or since it was begun.

    >>> begin_peak_memory()
    >>> 1e6 < peak_memory() < 1e12
    True
    """
    status = Path("/proc/self/status")  # on Linux, and the only place that can begin anew
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    if found:
        return int(found[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return int(psutil.Process().memory_info().peak_wset)
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
