"""The one path from a suspect to a purified model, whoever calls."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdlit.atomic import resumable_directory
from bdlit.defenses.base import (
    Defended,
    Defense,
    require_finite,
    run_defense,
    settings_of,
)
from bdlit.defenses.head import told_of_head
from bdlit.evaluation.scores import Scores
from bdlit.merging.audit import Audit
from bdlit.purification.card import model_card
from bdlit.purification.held import Held
from bdlit.purification.identity import identity_of
from bdlit.purification.marks import scored
from bdlit.purification.suspect import LiveSuspect, Suspect, Writing, apart
from bdlit.purification.workspace import workspace
from bdlit.types import Weights
from bdlit.weights import on_device, overlay, select

if TYPE_CHECKING:
    from bdlit.evaluation.evaluate import NamedTests

PROVENANCE = "provenance.json"
"""Name of the file beside a purified model that says where it came from."""


@dataclass(frozen=True, kw_only=True)
class Purified:
    """A purified model, and where it came from.

    Attributes:
        defended: What is deployed: weights, and what guards them.
        origin: Content of `provenance.json`: method, settings, parents with hashes, scores.
        scores: What was measured; None if nothing was.
        folder: Where it was written, if it was.
    """

    defended: Defended
    origin: Mapping[str, Any]
    scores: Scores | None = None
    folder: Path | None = None

    @property
    def weights(self) -> Weights:
        """The purified weights."""
        return self.defended.weights


def purify(
    suspect: Suspect,
    defense: Defense,
    held: Held | None = None,
    *,
    name: str | None = None,
    tests: NamedTests | None = None,
    before: Scores | None = None,
    out: Path | None = None,
    writing: Writing | None = None,
    work: Path | None = None,
    measured: Mapping[str, Any] | None = None,
) -> Purified:
    """Run one defense on a suspect, and write and measure what comes out; the suspect stays.

    A folder gets the weights in the suspect's form, its configuration and tokenizer,
    `provenance.json` and a model card, whole or not at all; an interrupted run goes on. Weights
    that are the suspect's own, of a defense of inputs or answers, are not copied.

    Every process of a group calls this: measuring is shared out among them.

    Args:
        suspect: The suspect.
        defense: The method.
        held: What the defender holds, checked (see `hold`).
        name: Name of the defense in folders, logs and results.
        tests: Test rows to measure on; the defense never sees them.
        before: Scores of the suspect, for the record.
        out: Folder of the purified model, which must not exist; None writes nothing, as every
            process but the first must.
        writing: How it is computed and written.
        work: Folder for what a long computation has finished.
        measured: What the scores depend on, for the identity.

    Raises:
        BdlitError: The defense lacks something, its models do not fit, it returned NaN or
            infinity, or the folder cannot be written.
    """
    from bdlit.evaluation.environment import begin_peak_memory, circumstances, peak_memory
    from bdlit.evaluation.scores import scores_to_plain

    held, writing, name = held or Held(), writing or Writing(), name or defense.name
    kept = out is not None or work is not None
    identity = identity_of(suspect, defense, held, writing, measured) if kept else {}
    begin_peak_memory()
    start = time.perf_counter()
    with (
        workspace(work, identity) as finished,
        _output(out, identity) as part,
        ThreadPoolExecutor(1) as beside,
    ):
        # Hashing reads every parent once; it goes on beside a merge of files.
        described = beside.submit(_described, suspect, held, defense) if _is_idle(suspect) else None
        audit = Audit(suspect.weights, {other.name: other.weights for other in held.others})
        defended = suspect.adapted(defense, held, writing) or _run(
            defense, suspect, held, finished, writing.device
        )
        defended = told_of_head(defense, suspect.settled(defended, audit, part, writing))
        seconds, peak = time.perf_counter() - start, peak_memory()
        require_finite(name, audit.broken)
        parent, given = described.result() if described else _described(suspect, held, defense)
        left = suspect.carry(defended, part) if part and not _is_guard(defended) else []
        if part and writing.check is not None and not _is_guard(defended):
            writing.check(part)
        scores, said = suspect.measure(tests, defended, part) if tests else (None, {})
        notes = {**defended.notes, **audit.report(), **_merged(defended.notes, said)}
        if held.left_out:
            notes["left_out"] = {name: list(names) for name, names in held.left_out.items()}
        origin = {
            **circumstances(),
            "method": type(defense).__name__,
            "name": name,
            "identity": identity,
            "parameters": settings_of(defense),
            "given": given,
            "suspect": parent,
            "notes": scored(notes, defended.chosen, held.training),
            "seconds": seconds,
            "peak_memory": peak,
            "merged": list(defended.merged),
            "changed": list(defended.changed),
            "copied": list(defended.copied),
            "guards": _guards(defended),
            "left_behind": left,
            "scores_before": scores_to_plain(before) if before else None,
            "scores": scores_to_plain(scores) if scores else None,
        }
        if part is not None:
            _describe(part, defended, origin, before, scores)
    return Purified(defended=defended, origin=origin, scores=scores, folder=out)


@contextmanager
def _output(out: Path | None, identity: Mapping[str, Any]) -> Iterator[Path | None]:
    if out is None:
        yield None
        return
    with resumable_directory(out, identity) as part:
        yield part


def _is_idle(suspect: Suspect) -> bool:
    """Whether nothing runs on the suspect's tensors while a defense is at work."""
    return not isinstance(suspect, LiveSuspect)


def _is_guard(defended: Defended) -> bool:
    """Whether the model is the suspect itself, behind a guard: it is not copied."""
    return defended.is_suspect and defended.guarded


def _described(suspect: Suspect, held: Held, defense: Defense) -> tuple[dict[str, Any], Any]:
    parent = {"name": suspect.address, "sha256": suspect.sha256}
    return parent, held.given(defense.uses)


def _run(
    defense: Defense, suspect: Suspect, held: Held, work: Path | None, device: str
) -> Defended:
    """Run the defense on all but the tensors that stay the suspect's."""
    wants_victim = {"victim", "train"} & set(defense.uses)
    victim = suspect.victim() if suspect.runnable and wants_victim else None
    weights = suspect.weights if device == "cpu" else on_device(suspect.weights, device)
    resources = held.resources(defense.uses, victim, work)
    with apart(victim):
        if not held.keep:
            return run_defense(defense, weights, resources)
        kept = set(held.keep)
        rest = [name for name in weights if name not in kept]
        others = [
            select(each.weights, (n for n in rest if n in each.weights)) for each in held.others
        ]
        defended = run_defense(defense, select(weights, rest), replace(resources, others=others))
    return replace(
        defended,
        weights=overlay(weights, defended.weights),
        copied=[*defended.copied, *held.keep],
    )


def _merged(ours: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what guards said while the model was measured, beside what was known of them."""
    return {
        key: {**ours[key], **value} if isinstance(ours.get(key), dict) else value
        for key, value in said.items()
    }


def _guards(defended: Defended) -> dict[str, str]:
    guards = {"inputs": defended.inputs, "answers": defended.answers}
    return {stage: guard.name for stage, guard in guards.items() if guard is not None}


def _describe(
    part: Path,
    defended: Defended,
    origin: Mapping[str, Any],
    before: Scores | None,
    after: Scores | None,
) -> None:
    for name, content in defended.files.items():
        (part / name).write_bytes(content)
    (part / PROVENANCE).write_text(json.dumps(origin, indent=2) + "\n")
    (part / "README.md").write_text(model_card(origin, before, after))
