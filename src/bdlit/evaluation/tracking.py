"""Weights & Biases, wherever we are: online with a key and a network, offline without."""

from __future__ import annotations

import netrc
import os
import socket
import sys
from dataclasses import astuple
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from bdlit.evaluation.result import UNDEFENDED, Result
from bdlit.evaluation.samples import side_by_side

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
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
    `<defense>/asr/<attack>`, `<defense>/seconds` for each defense, all in percent or seconds, and
    of both `.../false_triggers/<attack>/<case>` where an attack has cases in which it must not
    fire, and `.../perplexity/<tests>`, `.../coherence/<tests>`, `.../own_perplexity`,
    `.../tasks/<task>/<metric>` where these are measured; to W&B also the counts behind each (in
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
    prefix, metrics = _prefix(result), {}
    if result.cacc is not None:
        metrics[f"{prefix}/cacc"] = result.cacc.percent
    if result.asr is not None:
        metrics[f"{prefix}/asr/{result.attack}"] = result.asr.percent
    for case, rate in result.false_triggers.items():
        metrics[f"{prefix}/false_triggers/{result.attack}/{case}"] = rate.percent
    for name, measure in _means(result).items():
        metrics |= {f"{prefix}/{name}/{of}": each.value for of, each in measure.items()}
    if result.own_perplexity is not None:
        metrics[f"{prefix}/own_perplexity"] = result.own_perplexity.value
    if result.defense != UNDEFENDED and result.error is None:
        metrics[f"{prefix}/seconds"] = result.seconds
    return metrics


def _counts(result: Result) -> dict[str, list[float]]:
    """Return what rates and means are made of: a run can then be read back from its summary."""
    counted: dict[str, Any] = {
        "cacc": result.cacc,
        f"asr/{result.attack}": result.asr,
        "own_perplexity": result.own_perplexity,
    }
    for case, rate in result.false_triggers.items():
        counted[f"false_triggers/{result.attack}/{case}"] = rate
    for name, measure in _means(result).items():
        counted |= {f"{name}/{of}": each for of, each in measure.items()}
    return {name: list(astuple(each)) for name, each in counted.items() if each is not None}


def _means(result: Result) -> dict[str, Mapping[str, Any]]:
    return {"perplexity": result.perplexity, "coherence": result.coherence, "tasks": result.tasks}


def _log_to_wandb(run: Any, results: list[Result]) -> None:
    import wandb

    who = {name: getattr(results[0], name) for name in ("data", "victim", "train_attack", "seed")}
    run.config.update({"bdlit": who}, allow_val_change=True)
    for result in results:
        for name, counts in _counts(result).items():
            run.summary[f"{_prefix(result)}/counts/{name}"] = counts
    columns = ["victim", "defense", "attack", "cacc", "asr", "floor", "seconds", "error"]
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
    return [*who, *rates, result.seconds, result.error]
