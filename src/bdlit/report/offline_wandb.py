"""Offline W&B runs as results: read from disk, without a network, a key or the wandb import."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bdlit.errors import BdlitError
from bdlit.evaluation.measures import MEASURES
from bdlit.evaluation.result import UNDEFENDED, Result
from bdlit.types import Rate

RUN_PREFIX = "offline-run-"
"""How the name of an offline run's folder begins."""

_VICTIM = "victim"  # the summary prefix of the undefended model; defenses go by their own names
_COUNTS = "/counts/cacc"

_log = logging.getLogger(__name__)


def read_offline_runs(runs: Sequence[Path]) -> list[tuple[Path, list[Result]]]:
    """Read the results that bdlit logged to offline W&B runs.

    A run says in its config what was trained, `bdlit = {data, victim, train_attack, benign,
    seed}`, and in its summary, for `P` = `victim` and for every defense `P`,
    `P/counts/cacc = [hits, n]`, `P/counts/asr/<attack> = [hits, n]` and `P/seconds`, and the
    measures of the table where they were measured (see `log_results`). Runs of other programs hold
    no results; a run that cannot be read is named in a warning and left out.

    Args:
        runs: Folders `offline-run-*`.

    Returns:
        Each run with its results, in the order given.

    Raises:
        BdlitError: The installed wandb has no reader of offline runs.
    """
    if not runs:
        return []
    core = _wandb_core()
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        records = pool.map(lambda run: _inspect(core, run), runs)
        return [(run, list(_results(record))) for run, record in zip(runs, records, strict=True)]


def _wandb_core() -> Path:
    """Find the Go program behind `wandb leet`: `wandb` itself takes a second to start."""
    spec = find_spec("wandb")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        core = Path(folder) / "bin" / "wandb-core"
        if core.exists():
            return core
    raise BdlitError(
        "cannot read offline W&B runs: no wandb-core beside the wandb package; "
        "install it again with `pip install --force-reinstall wandb`"
    )


def _inspect(core: Path, run: Path) -> Mapping[str, Any]:
    logs = sorted(run.glob("run-*.wandb"))
    if not logs:
        return {}
    options = ["--summary", "--json", "--no-observability", "--run-file", str(logs[0])]
    done = subprocess.run(
        [str(core), "leet", "inspect", *options, str(run.parent)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    try:
        record: Mapping[str, Any] = json.loads(done.stdout)
    except ValueError:
        reason = (done.stderr.strip() or "no summary").splitlines()[-1]
        _log.warning("left out the W&B run %s, which cannot be read: %s", run, reason)
        return {}
    return record


def _results(record: Mapping[str, Any]) -> Iterator[Result]:
    identity = (record.get("config") or {}).get("bdlit")
    summary = record.get("summary") or {}
    if not identity:
        return
    for prefix in (key.removesuffix(_COUNTS) for key in summary if key.endswith(_COUNTS)):
        yield from _of_model(identity, summary, prefix)


def _of_model(
    identity: Mapping[str, Any], summary: Mapping[str, Any], prefix: str
) -> Iterator[Result]:
    """Yield the results of one model, one for each attack."""
    defended = prefix != _VICTIM
    before = _rates(summary, f"{_VICTIM}/counts/asr/")
    read = {measure: measure.read(_named(summary, prefix, measure.key)) for measure in MEASURES}
    for attack, asr in _rates(summary, f"{prefix}/counts/asr/").items():
        own = {measure.key: measure.narrowed(value, attack) for measure, value in read.items()}
        yield Result(
            data=str(identity["data"]),
            attack=attack,
            victim=str(identity["victim"]),
            defense=prefix if defended else UNDEFENDED,
            seed=int(identity["seed"]),
            train_attack=str(identity["train_attack"]),
            benign=identity.get("benign"),
            cacc=_rate(summary, prefix + _COUNTS),
            asr=asr,
            cacc_before=_rate(summary, _VICTIM + _COUNTS) if defended else None,
            asr_before=before.get(attack) if defended else None,
            measures={key: value for key, value in own.items() if value},
            seconds=float(summary.get(f"{prefix}/seconds") or 0.0),
        )


def _named(summary: Mapping[str, Any], prefix: str, key: str) -> dict[str, Any]:
    """Return the counts of a measure by their names, which `Measure.named` gave them."""
    start = f"{prefix}/counts/"
    names = (name.removeprefix(start) for name in summary if name.startswith(start))
    own = (name for name in names if name == key or name.startswith(f"{key}/"))
    return {name: summary[start + name] for name in own if summary[start + name]}


def _rates(summary: Mapping[str, Any], start: str) -> dict[str, Rate]:
    """Return the rates under names that begin so, by the rest of the name."""
    names = (key for key in summary if key.startswith(start) and summary[key])
    return {name.removeprefix(start): Rate(*map(int, summary[name])) for name in names}


def _rate(summary: Mapping[str, Any], key: str) -> Rate | None:
    return Rate(*map(int, summary[key])) if summary.get(key) else None
