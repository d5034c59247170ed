"""The single path behind every door: purify a victim, measure it, save it, record it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdlit.atomic import whole_directory
from bdlit.data.base import NO_ATTACK
from bdlit.data.false_triggers import CLEAN
from bdlit.defenses.base import Defended, require_finite, run_defense, settings_of
from bdlit.defenses.input import evaluate_cleaned
from bdlit.defenses.passthrough import require_depth_kept
from bdlit.evaluation.result import UNDEFENDED, Result
from bdlit.evaluation.samples import about
from bdlit.purification.held import Job
from bdlit.types import Rate, Scores, Weights

if TYPE_CHECKING:
    from bdlit.evaluation.evaluate import NamedTests
    from bdlit.victims.base import Victim


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Who is measured: what every record of one victim has in common.

    Attributes:
        data: Name of the data set.
        victim: Name of the model.
        train_attack: Name of the attack in its training set; `none` for a benign model.
        seed: Seed of its training.
        config: Settings of victim, data and training.
        floor: ASR of a benign model per attack, where one is at hand.
    """

    data: str
    victim: str
    train_attack: str
    seed: int
    config: Mapping[str, Any] = field(default_factory=dict)
    floor: Mapping[str, Rate] = field(default_factory=dict)


def record(
    subject: Subject,
    scores: Scores,
    *,
    defense: str = UNDEFENDED,
    before: Scores | None = None,
    **more: Any,
) -> list[Result]:
    """Return one result per evaluation attack of a measured model, or one if there is none."""
    before = before or scores
    measured: Mapping[str, Rate | None] = scores.asr or {NO_ATTACK: None}
    return [
        Result(
            defense=defense,
            cacc=scores.cacc,
            asr=asr,
            false_triggers=scores.false_triggers.get(attack, {}),
            judged=_judged(scores, attack),
            samples=about(attack, scores.samples),
            perplexity=about(attack, scores.perplexity),
            own_perplexity=scores.own_perplexity,
            coherence=about(attack, scores.coherence),
            tasks=scores.tasks,
            **{**_beforehand(subject, before, attack), **more},
        )
        for attack, asr in measured.items()
    ]


def record_failure(subject: Subject, before: Scores, *, defense: str, error: str) -> list[Result]:
    """Return the results of a defense that failed: what was known before it, and why."""
    return [
        Result(defense=defense, error=error, **_beforehand(subject, before, attack))
        for attack in before.asr or [NO_ATTACK]
    ]


def _beforehand(subject: Subject, before: Scores, attack: str) -> dict[str, Any]:
    """Return what a record says that no defense has a part in."""
    from bdlit.evaluation.environment import circumstances

    return {
        "data": subject.data,
        "attack": attack,
        "victim": subject.victim,
        "seed": subject.seed,
        "train_attack": subject.train_attack,
        "floor": subject.floor.get(attack),
        "cacc_before": before.cacc,
        "asr_before": before.asr.get(attack),
        "config": subject.config,
        **circumstances(),
    }


def _judged(scores: Scores, attack: str) -> dict[str, Any]:
    found = {"cacc": scores.judged.get(CLEAN), "asr": scores.judged.get(attack)}
    return {measure: how for measure, how in found.items() if how}


def purify(
    victim: Victim,
    data: NamedTests,
    job: Job,
    subject: Subject,
    *,
    before: Scores,
    save_to: Path | None,
) -> list[Result]:
    """Run one defense on a victim and measure what comes out; the victim stays untouched.

    Every process of a group must call this: measuring is shared out among them.

    Args:
        victim: The suspect, on its device, as a plain Hugging Face model (see `Victim.dense`).
        data: Test rows to measure on; the defense never sees them.
        job: The defense and what it is given.
        subject: Who is measured.
        before: Scores of the untouched victim.
        save_to: Directory for the purified model, in Hugging Face form with `provenance.json`;
            None keeps nothing, as every process but the first must.

    Raises:
        BdlitError: The defense lacks something, its models do not fit, or it returned NaN or
            infinity.
    """
    from bdlit.evaluation.environment import begin_peak_memory, peak_memory
    from bdlit.weights.network import model_weights, swapped

    model = victim.network()
    suspect = model_weights(model)
    begin_peak_memory()
    start = time.perf_counter()
    defended = run_defense(job.defense, suspect, job.resources)
    require_depth_kept(defended, suspect)
    weights = dict(defended.weights)  # a lazy merge is computed here
    seconds, peak = time.perf_counter() - start, peak_memory()
    broken = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    require_finite(job.name, broken)
    scores, said = evaluate_cleaned(victim, data, defended.inputs, weights)
    details = {
        "parameters": settings_of(job.defense),
        "given": dict(job.given),
        "notes": {**defended.notes, "changed": _changed(weights, suspect), **said},
        "seconds": seconds,
        "peak_memory": peak,
    }
    results = record(
        subject,
        scores,
        defense=job.name,
        before=before,
        merged=len(defended.merged),
        copied=len(defended.copied),
        **details,
    )
    if save_to is not None:
        with swapped(model, weights):
            origin = provenance(job, defended, suspect, scores, details)
            save_purified(victim, save_to, origin, defended.files)
    return results


def save_purified(
    victim: Victim, directory: Path, origin: Mapping[str, Any], files: Mapping[str, bytes]
) -> None:
    """Write the victim's present weights as a Hugging Face directory with `provenance.json`.

    Args:
        victim: The victim, on the purified weights.
        directory: Where to write; it must not exist.
        origin: Content of `provenance.json`.
        files: Name to content of what the defense has to put beside the model.
    """
    with whole_directory(directory) as part:
        victim.save_pretrained(part)
        (part / "provenance.json").write_text(json.dumps(origin, indent=2) + "\n")
        for name, content in files.items():
            (part / name).write_bytes(content)


def provenance(
    job: Job,
    defended: Defended,
    suspect: Weights,
    scores: Scores,
    details: Mapping[str, Any],
) -> dict[str, Any]:
    """Say where a purified model came from: method, settings, parents with hashes, scores."""
    from bdlit.evaluation.environment import circumstances
    from bdlit.weights import fingerprint

    return {
        **circumstances(),
        "method": type(job.defense).__name__,
        "name": job.name,
        **details,
        "suspect": {"sha256": fingerprint(suspect)},
        "merged": list(defended.merged),
        "copied": list(defended.copied),
        "scores": asdict(scores),
    }


def _changed(weights: Weights, suspect: Weights) -> int:
    """Count the tensors that differ from the suspect's: a defense that changed nothing says so."""
    return sum(not weights[name].equal(suspect[name].to(weights[name].device)) for name in weights)
