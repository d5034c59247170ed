"""Weights & Biases, wherever we are: online with a key and a network, offline without."""

from __future__ import annotations

import netrc
import os
import socket
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from bdlit.evaluation.intervals import rate_interval
from bdlit.evaluation.measure import Count, counts_of, value_of
from bdlit.evaluation.measures import MEASURES
from bdlit.evaluation.result import UNDEFENDED, Result
from bdlit.evaluation.samples import side_by_side

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lightning.pytorch.loggers import Logger, WandbLogger

_PATIENCE = 2.0  # seconds to wait for the server


def go_offline_if_needed() -> None:
    """Set W&B to offline mode, with one line that says why, if it cannot work online.

    A mode that the user chose (`WANDB_MODE`) stays.
    """
    if os.environ.get("WANDB_MODE"):
        return
    why = _obstacle()
    if why:
        os.environ["WANDB_MODE"] = "offline"
        print(f"W&B is offline ({why}); upload runs later with `wandb sync`.", file=sys.stderr)


def _obstacle() -> str | None:
    server = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    host = server.hostname or ""
    # Asking wandb itself would make it read its settings, the mode too, once and for all.
    if not os.environ.get("WANDB_API_KEY") and not _stored_key(host):
        return "no API key; `wandb login` stores one"
    try:
        port = server.port or (443 if server.scheme == "https" else 80)
        socket.create_connection((host, port), _PATIENCE).close()
    except OSError:
        return f"{host} cannot be reached"
    return None


def _stored_key(host: str) -> bool:
    """Whether `wandb login` has stored a key for the server."""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def wandb_logger(
    name: str, folder: Path, *, group: str, job_type: str, tags: Sequence[str]
) -> WandbLogger:
    """Return the logger of a run that no config describes.

    Args:
        name: Name of the run.
        folder: Gets the run's files.
        group: What it belongs to: a study, or a data set.
        job_type: `fit`, `measure` or `defend`.
        tags: Tags; doubles are left out.
    """
    from lightning.pytorch.loggers import WandbLogger

    return WandbLogger(
        project="bdlit",
        name=name,
        save_dir=str(folder),
        group=group,
        job_type=job_type,
        tags=list(dict.fromkeys(tags)),
    )


def log_results(loggers: list[Logger], results: list[Result]) -> None:
    """Log measured models under the one naming scheme, so that runs line up in W&B.

    `victim/cacc`, `victim/asr/<attack>` for the model as trained, `<defense>/cacc`,
    `<defense>/asr/<attack>`, `<defense>/seconds` for each defense, all in percent or seconds; of
    both the ends of the 95% intervals, `.../cacc_low`, `.../cacc_high`, `.../asr_low/<attack>`,
    `.../asr_high/<attack>` (a run is one seed, so they are over its rows only), and what is
    measured of the table: `.../false_triggers/<attack>/<case>`, `.../perplexity/<tests>`,
    `.../coherence/<tests>`, `.../own_perplexity`, `.../tasks/<task>/<metric>`,
    `.../false_rejection`, `.../false_acceptance/<attack>`; to W&B also the counts behind each (in
    the summary, below `.../counts`), a table of all defenses, a bar chart, and where models wrote
    responses, a table of samples (`samples`): prompts with the answers of all.

    Args:
        loggers: Loggers of a trainer.
        results: Records of one victim, undefended and defended.
    """
    from lightning.pytorch.loggers import WandbLogger

    metrics = dict(pair for result in results for pair in _metrics(result).items())
    for logger in loggers:
        logger.log_metrics(metrics)
        if isinstance(logger, WandbLogger) and results:
            _log_to_wandb(logger.experiment, results)


def _prefix(result: Result) -> str:
    return "victim" if result.defense == UNDEFENDED else result.defense


def _metrics(result: Result) -> dict[str, float]:
    prefix = _prefix(result)
    metrics = {f"{prefix}/{name}": value_of(count) for name, count in _numbers(result).items()}
    metrics |= {f"{prefix}/{name}": end for name, end in _ends(result).items()}
    if result.defense != UNDEFENDED and result.error is None:
        metrics[f"{prefix}/seconds"] = result.seconds
    return metrics


def _ends(result: Result) -> dict[str, float]:
    """Return the ends of the intervals of CACC and ASR, which are over the rows of one seed."""
    found: dict[str, float] = {}
    rates = {"cacc": ("", result.cacc), "asr": (f"/{result.attack}", result.asr)}
    for key, (of_attack, rate) in rates.items():
        if interval := rate_interval([rate] if rate else []):
            found[f"{key}_low{of_attack}"] = interval.low
            found[f"{key}_high{of_attack}"] = interval.high
    return found


def _numbers(result: Result) -> dict[str, Count]:
    """Return all numbers of a record by their names, with what they are made of."""
    rates = {"cacc": result.cacc, f"asr/{result.attack}": result.asr}
    found: dict[str, Count] = {name: rate for name, rate in rates.items() if rate is not None}
    for measure in MEASURES:
        found |= measure.named(getattr(result, measure.key), result.attack)
    return found


def _counts(result: Result) -> dict[str, list[float]]:
    """Return what rates and means are made of: a run can then be read back from its summary."""
    return {name: counts_of(count) for name, count in _numbers(result).items()}


def _log_to_wandb(run: Any, results: list[Result]) -> None:
    import wandb

    who = {
        name: getattr(results[0], name)
        for name in ("data", "victim", "train_attack", "benign", "seed")
    }
    run.config.update({"bdlit": who}, allow_val_change=True)
    for result in results:
        for name, counts in _counts(result).items():
            run.summary[f"{_prefix(result)}/counts/{name}"] = counts
    columns = ["victim", "defense", "attack", "cacc", "asr", "floor", "seconds", "error"]
    columns += ["cacc_low", "cacc_high", "asr_low", "asr_high"]  # over the rows of one seed
    table = wandb.Table(columns=columns, data=[_line(result) for result in results])
    own = [r for r in results if r.attack == r.train_attack and r.asr is not None] or results
    bars = wandb.Table(
        columns=["defense", "ASR"], data=[[_prefix(r), r.asr.percent] for r in own if r.asr]
    )
    chart = wandb.plot.bar(bars, "defense", "ASR", title="ASR by defense")
    found = {"defenses": table, "defenses/asr": chart}
    run.log({**found, **_samples(results), **_strategies(results)})


def _samples(results: list[Result]) -> dict[str, Any]:
    """Return a table of prompts, with the answers of the victim and of each purified form of it."""
    lines = side_by_side((_prefix(result), result.samples) for result in results)
    if not lines:
        return {}
    import wandb

    models = list(dict.fromkeys(_prefix(result) for result in results if result.samples))
    table = wandb.Table(columns=["tests", "prompt", "wanted", *models])
    for line in lines:
        said = [line.answers[m].response if m in line.answers else None for m in models]
        table.add_data(line.tests, line.prompt, line.wanted, *said)
    return {"samples": table}


def _strategies(results: list[Result]) -> dict[str, Any]:
    """Draw what defenses replaced, where they tell and matplotlib is installed."""
    from bdlit.drawing.style import can_draw

    if not can_draw():
        return {}
    import wandb

    from bdlit.drawing.strategy import strategy_plot

    found = {r.defense: r.notes for r in results if "replaced" in r.notes and "modules" in r.notes}
    return {
        f"{defense}/strategy": wandb.Image(
            strategy_plot(notes["replaced"], notes["modules"], notes["layers"], defense)
        )
        for defense, notes in found.items()
    }


def _line(result: Result) -> list[Any]:
    rates = [rate.percent if rate else None for rate in (result.cacc, result.asr, result.floor)]
    who = [result.victim, result.defense, result.attack]
    found = [rate_interval([rate] if rate else []) for rate in (result.cacc, result.asr)]
    ends = [getattr(interval, end, None) for interval in found for end in ("low", "high")]
    return [*who, *rates, result.seconds, result.error, *ends]
