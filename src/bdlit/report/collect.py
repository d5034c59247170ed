"""Find and read the measurements below some folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from bdlit.errors import BdlitError
from bdlit.evaluation.result import read_results
from bdlit.report.baselines import fill_baselines
from bdlit.report.offline_wandb import RUN_PREFIX, read_offline_runs
from bdlit.report.row import Row, row_of

RESULTS = "results.jsonl"
"""Name of the file that a run or a study appends its records to."""


def collect(paths: Sequence[Path]) -> list[Row]:
    """Read every measurement below the given folders.

    Records come from each `results.jsonl`, and from those offline W&B runs that have no
    `results.jsonl` in their run's folder or in one above it. A row's missing floor and scores
    before defense are taken from its companions, see `fill_baselines`.

    Args:
        paths: Folders of runs or studies, or results files.

    Returns:
        The rows in the order of the paths, below each path in the order of folder names.

    Raises:
        BdlitError: A path does not exist, nothing is found, or a file holds no results.
    """
    files: dict[Path, Path] = {}  # by resolved path: overlapping folders count once
    runs: dict[Path, Path] = {}
    for path in paths:
        below = _search(path)
        files |= {file.resolve(): file for file in below[0] if file.resolve() not in files}
        runs |= {run.resolve(): run for run in below[1] if run.resolve() not in runs}
    recorded = [
        row_of(record, file.parent) for file in files.values() for record in read_results(file)
    ]
    covered = [file.parent for file in files]
    alone = [run for where, run in runs.items() if not any(map(where.is_relative_to, covered))]
    logged = [row_of(result, run) for run, found in read_offline_runs(alone) for result in found]
    rows = recorded + _unrecorded(logged, recorded)
    if not rows:
        places = ", ".join(map(str, paths)) or "no folder"
        raise BdlitError(
            f"no results in {places}: neither a {RESULTS} nor an offline W&B run with scores; "
            "`bdlit study` and `bdlit fit` with a DefenseCallback write them"
        )
    return fill_baselines(rows)


def _search(path: Path) -> tuple[list[Path], list[Path]]:
    """List the results files and the offline W&B runs below a folder."""
    if path.is_file():
        return [path], []
    if not path.is_dir():
        raise BdlitError(f"no such file or folder: {path}; give the folder of a run or of a study")
    if path.name.startswith(RUN_PREFIX):
        return [], [path]
    files: list[Path] = []
    runs: list[Path] = []
    for folder, names, found in os.walk(path):
        if RESULTS in found:
            files.append(Path(folder, RESULTS))
        runs += [Path(folder, name) for name in sorted(names) if name.startswith(RUN_PREFIX)]
        names[:] = sorted(name for name in names if not name.startswith((".", RUN_PREFIX)))
    return files, runs


def _unrecorded(logged: Iterable[Row], recorded: Iterable[Row]) -> list[Row]:
    """Leave out what W&B logged of measurements that a results file holds as well."""
    known = {(row.cell, row.cacc, row.asr) for row in recorded}
    return [row for row in logged if (row.cell, row.cacc, row.asr) not in known]
