"""Offline W&B runs as results: read from disk, without a network, a key or the wandb import."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from bdlit.data.false_triggers import attack_of, case_of
from bdlit.errors import BdlitError
from bdlit.evaluation.result import UNDEFENDED, Result
from bdlit.evaluation.samples import about
from bdlit.types import Mean, Perplexity, Rate

T = TypeVar("T")

Counts: TypeAlias = Sequence[float | str]
"""What a rate or a mean is made of: JSON has infinity as a text."""

RUN_PREFIX = "offline-run-"
"""How the name of an offline run's folder begins."""

_VICTIM = "victim"  # the summary prefix of the undefended model; defenses go by their own names
_COUNTS = "/counts/cacc"

_log = logging.getLogger(__name__)


def read_offline_runs(runs: Sequence[Path]) -> list[tuple[Path, list[Result]]]:
    """Read the results that bdlit logged to offline W&B runs.

    A run says in its config what was trained, `bdlit = {data, victim, train_attack, seed}`, and in
    its summary, for `P` = `victim` and for every defense `P`, `P/counts/cacc = [hits, n]`,
    `P/counts/asr/<attack> = [hits, n]` and `P/seconds`, and where they were measured false
    triggers, perplexity, coherence and tasks (see `log_results`). Runs of other programs hold no
    results; a run that cannot be read is named in a warning and left out.

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
    before = _counted(summary, f"{_VICTIM}/counts/asr/", _rate)
    false = _counted(summary, f"{prefix}/counts/false_triggers/", _rate)
    perplexity = _counted(summary, f"{prefix}/counts/perplexity/", _perplexity)
    coherence = _counted(summary, f"{prefix}/counts/coherence/", _mean)
    for attack, asr in _counted(summary, f"{prefix}/counts/asr/", _rate).items():
        yield Result(
            data=str(identity["data"]),
            attack=attack,
            victim=str(identity["victim"]),
            defense=prefix if defended else UNDEFENDED,
            seed=int(identity["seed"]),
            train_attack=str(identity["train_attack"]),
            cacc=_only(summary, prefix + _COUNTS, _rate),
            asr=asr,
            cacc_before=_only(summary, _VICTIM + _COUNTS, _rate) if defended else None,
            asr_before=before.get(attack) if defended else None,
            false_triggers={
                str(case_of(name)): rate
                for name, rate in false.items()
                if attack_of(name) == attack
            },
            perplexity=about(attack, perplexity),
            own_perplexity=_only(summary, f"{prefix}/counts/own_perplexity", _perplexity),
            coherence=about(attack, coherence),
            tasks=_counted(summary, f"{prefix}/counts/tasks/", _mean),
            seconds=float(summary.get(f"{prefix}/seconds") or 0.0),
        )


def _counted(summary: Mapping[str, Any], start: str, made: Callable[[Counts], T]) -> dict[str, T]:
    """Return what was counted under names that begin so, by the rest of the name."""
    names = (key for key in summary if key.startswith(start) and summary[key])
    return {name.removeprefix(start): made(summary[name]) for name in names}


def _only(summary: Mapping[str, Any], key: str, made: Callable[[Counts], T]) -> T | None:
    return made(summary[key]) if summary.get(key) else None


def _rate(counts: Counts) -> Rate:
    return Rate(*map(int, counts))


def _mean(counts: Counts) -> Mean:
    total, n = counts
    return Mean(float(total), int(n))


def _perplexity(counts: Counts) -> Perplexity:
    nats, tokens = counts
    return Perplexity(float(nats), int(tokens))
