"""Purifying a saved model into a saved model: streamed, resumable, with its origin beside it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from bdlit.atomic import resumable_directory
from bdlit.defenses.base import Defended, require_finite, run_defense, settings_of
from bdlit.merging.audit import Audit
from bdlit.purification.as_adapter import dense_view, exact_adapter, low_rank_adapter
from bdlit.purification.card import model_card
from bdlit.purification.held import Job, Relative
from bdlit.tables import rows_hash
from bdlit.types import Example, Scores, Weights
from bdlit.weights import (
    Adapter,
    AdapterWeights,
    SafetensorsWeights,
    fingerprint,
    on_device,
    outline,
    overlay,
    select,
    write_adapter,
)
from bdlit.weights.adapters.config import CONFIG_NAME as ADAPTER_CONFIG
from bdlit.weights.checkpoint import Checkpoint
from bdlit.weights.depth import with_depth
from bdlit.weights.streaming import shard_layout, write_shards
from bdlit.weights.tying import tied_like

if TYPE_CHECKING:
    from torch import Tensor

    from bdlit.purification.measure import Measure
    from bdlit.weights import Read

PROVENANCE = "provenance.json"
"""Name of the file beside a purified model that says where it came from."""

_SEEN = ".seen.json"  # what the audit knows of the shards that stand


@dataclass(frozen=True, kw_only=True)
class Writing:
    """How a purified model is written.

    Attributes:
        workers: Number of threads that compute tensors.
        progress: Called with the bytes done and the bytes in all, from several threads.
        device: Where tensors are computed; they are written from the CPU.
        measure: How the purified model is measured; None measures nothing.
        before: Scores of the suspect, if it was measured.
        dense: Write a dense model even if the suspect is an adapter.
        rank: Write an adapter of this rank, by SVD, where no adapter is exactly the result.
        check: Called with the folder at the end; it raises if the model does not work.
    """

    workers: int = 1
    device: str = "cpu"
    progress: Callable[[int, int], None] = lambda done, total: None
    measure: Measure | None = None
    before: Scores | None = None
    dense: bool = False
    rank: int | None = None
    check: Callable[[Path], Any] | None = None


def purify_saved(
    suspect: Checkpoint,
    job: Job,
    out: Path,
    writing: Writing | None = None,
    *,
    keep: Sequence[str] = (),
) -> dict[str, Any]:
    """Run one defense on a saved model and write the purified model, whole or not at all.

    The folder gets the weights, cut as the suspect's are, the suspect's configuration and
    tokenizer, `provenance.json` and a model card. An interrupted run continues from the shards
    that stand.

    Args:
        suspect: The model to purify.
        job: The defense and what the defender holds.
        out: Folder of the purified model; it must not exist.
        writing: How to write it.
        keep: Tensors that stay the suspect's own, which the others lack or have in another shape.

    Returns:
        The content of `provenance.json`.

    Raises:
        BdlitError: The defense lacks something, its models do not fit, it returned NaN or
            infinity, or the folder cannot be written.
    """
    from bdlit.evaluation.environment import begin_peak_memory, circumstances, peak_memory

    writing = writing or Writing()
    begin_peak_memory()
    identity = identity_of(suspect, job, writing, keep)
    parent = Relative(suspect.address, suspect.weights)
    start = time.perf_counter()
    with resumable_directory(out, identity) as part, ThreadPoolExecutor(1) as beside:
        # Hashing reads every parent once; it goes on beside the merge.
        described = beside.submit(lambda: (parent.described(), job.given))
        adapter = None if writing.dense or keep else exact_adapter(job, suspect.weights)
        if adapter is not None:
            defended, audit = _write_adapter(adapter, suspect, job, part, {})
        else:
            defended = _run_around(job, on_device(suspect.weights, writing.device), keep)
            if writing.rank is not None:
                found, notes = low_rank_adapter(suspect.weights, defended.weights, writing.rank)
                written, audit = _write_adapter(found, suspect, job, part, notes)
                said = {**written.notes, **defended.notes}
                defended = replace(
                    written, notes=said, files=defended.files, inputs=defended.inputs
                )
            else:
                audit = _write(defended, suspect, job, part, writing)
        seconds, peak = time.perf_counter() - start, peak_memory()
        origin = {
            **circumstances(),
            "method": type(job.defense).__name__,
            "name": job.name,
            "identity": identity,
            "parameters": settings_of(job.defense),
            "notes": {**defended.notes, **audit.report()},
            "seconds": seconds,
            "peak_memory": peak,
            "merged": list(defended.merged),
            "copied": list(defended.copied),
            "left_behind": suspect.carry(part, dense=not (part / ADAPTER_CONFIG).exists()),
        }
        _set_depth(part, defended)
        for name, content in defended.files.items():
            (part / name).write_bytes(content)
        origin["suspect"], origin["given"] = described.result()
        if writing.check is not None:
            writing.check(part)
        scores, said = writing.measure(part, defended.inputs) if writing.measure else (None, {})
        origin["notes"] |= said
        _describe(part, origin, writing.before, scores)
    return origin


def _run_around(job: Job, suspect: Weights, keep: Sequence[str]) -> Defended:
    """Run the defense on all but some tensors, which stay the suspect's."""
    if not keep:
        return run_defense(job.defense, suspect, job.resources)
    kept = set(keep)
    rest = [name for name in suspect if name not in kept]
    others = [
        select(other.weights, (n for n in rest if n in other.weights)) for other in job.others
    ]
    resources = replace(job.resources, others=others)
    defended = run_defense(job.defense, select(suspect, rest), resources)
    return replace(
        defended,
        weights=overlay(suspect, defended.weights),
        copied=[*defended.copied, *keep],
    )


def _set_depth(part: Path, defended: Defended) -> None:
    """Write the number of layers into the configuration, where the defense changed it."""
    file, depth = part / "config.json", defended.notes.get("depth")
    if depth is None or not file.is_file():
        return
    config = json.loads(file.read_text("utf-8"))
    layers = [layer for _, layer in defended.notes.get("layers", ())] or None
    if layers is not None and depth != len(layers):
        layers = None
    file.write_text(json.dumps(with_depth(config, depth, layers), indent=2) + "\n")


def _write_adapter(
    adapter: Adapter, suspect: Checkpoint, job: Job, part: Path, notes: Mapping[str, Any]
) -> tuple[Defended, Audit]:
    """Write the result as an adapter, and look at every weight that it changes."""
    assert isinstance(suspect.weights, AdapterWeights)
    view = dense_view(adapter, suspect.weights)
    audit = Audit(suspect.weights, {other.name: other.weights for other in job.others})
    for name in view:
        audit(name, view[name])
    require_finite(job.name, audit.broken)
    write_adapter(adapter.factors, adapter.saved, adapter.config, part)
    changed = {**dict.fromkeys(adapter.factors), **dict.fromkeys(adapter.saved)}
    defended = Defended(
        weights=view,
        merged=list(changed),
        copied=[name for name in suspect.weights if name not in changed],
        notes={"models": len(job.others) + 1, "form": "adapter", **notes},
    )
    return defended, audit


def _write(
    defended: Defended, suspect: Checkpoint, job: Job, part: Path, writing: Writing
) -> Audit:
    """Write the shards that do not stand yet, and look at every tensor on its way."""
    weights = tied_like(suspect.weights, defended.weights)
    audit = Audit(suspect.weights, {other.name: other.weights for other in job.others})
    note = part / _SEEN
    layout = layout_like(suspect.weights, weights)
    standing = _standing(note, audit, part, list(layout))
    progress = _Progress(weights, layout, standing, writing.progress)

    def seen(name: str, piece: Tensor, read: Read) -> None:
        audit(name, piece, read)
        progress.add(piece.nbytes)

    def finished(shard: str) -> None:
        if shard not in standing:
            standing.append(shard)
            _replace(note, json.dumps({"shards": standing, "audit": audit.state()}))

    write_shards(weights, part, layout, workers=writing.workers, seen=seen, finished=finished)
    note.unlink(missing_ok=True)
    require_finite(job.name, audit.broken)
    return audit


def layout_like(suspect: Weights, weights: Weights) -> dict[str, list[str]]:
    """Return the suspect's cut into files where the names are the same, or a cut of our own."""
    if isinstance(suspect, SafetensorsWeights) and set(suspect) == set(weights):
        layout = suspect.layout
        return {"model.safetensors": [*suspect]} if len(layout) == 1 else layout
    return shard_layout(weights)


def identity_of(
    suspect: Checkpoint, job: Job, writing: Writing, keep: Sequence[str] = ()
) -> dict[str, Any]:
    """Return what tells one purification from another: method, settings, and all that is read."""
    parents = [(suspect.address, suspect.weights)]
    parents += [(other.name, other.weights) for other in job.others]
    parents += [(job.base.name, job.base.weights)] if job.base else []
    settings = settings_of(job.defense)
    identity = {
        "method": type(job.defense).__name__,
        "settings": settings,
        "files": {name: sha256(Path(name).read_bytes()).hexdigest() for name in _named(settings)},
        "parents": [[name, _files(weights)] for name, weights in parents],
        "keep": list(keep),
        "form": {"dense": writing.dense, "rank": writing.rank},
        "rows": {name: rows_hash(rows) for name, rows in _rows(job).items()},
        "dynamics": _dynamics(job),
        "measured": writing.measure.described() if writing.measure else None,
    }
    return dict(json.loads(json.dumps(identity)))


def _rows(job: Job) -> dict[str, Sequence[Example]]:
    """Return the rows that the defense is given, by the name of the resource."""
    training = job.suspect_train
    rows = {"clean": job.clean, "suspect_train": training.rows if training else ()}
    return {name: each for name, each in rows.items() if name in job.defense.uses}


def _named(settings: Any) -> list[str]:
    """Return the files that settings name, such as a strategy or a table of rows."""
    if isinstance(settings, Mapping):
        settings = list(settings.values())
    if isinstance(settings, list):
        return sorted({name for each in settings for name in _named(each)})
    return [settings] if isinstance(settings, str) and Path(settings).is_file() else []


def _dynamics(job: Job) -> str | None:
    training = job.suspect_train if "suspect_train" in job.defense.uses else None
    if training is None or training.certainty is None:
        return None
    return sha256(training.certainty.contiguous().numpy().tobytes()).hexdigest()


def _files(weights: Weights) -> str | list[list[Any]]:
    """Return path, size and time of the files of a model, so that a changed one is noticed.

    A model that is not its files as they stand, such as an adapter, is read, and its hash returned.
    """
    if not isinstance(weights, SafetensorsWeights):
        return fingerprint(weights)
    stats = [(str(path.absolute()), path.stat()) for path in weights.paths]
    return [[path, stat.st_size, stat.st_mtime_ns] for path, stat in stats]


class _Progress:
    """Counts bytes, and tells of them."""

    def __init__(
        self,
        weights: Weights,
        layout: Mapping[str, Sequence[str]],
        standing: Sequence[str],
        tell: Callable[[int, int], None],
    ) -> None:
        sizes = {n: outline(weights, n).bytes for names in layout.values() for n in names}
        self._total = sum(sizes.values())
        self._done = sum(sizes[name] for shard in standing for name in layout[shard])
        self._tell = tell
        self._lock = Lock()
        tell(self._done, self._total)

    def add(self, size: int) -> None:
        with self._lock:
            self._done += size
            self._tell(self._done, self._total)


def _standing(seen: Path, audit: Audit, part: Path, shards: Sequence[str]) -> list[str]:
    """Return the finished shards of an earlier run, and take up what its audit saw of them."""
    known = json.loads(seen.read_text()) if seen.is_file() else None
    standing = [str(shard) for shard in known["shards"]] if known else []
    if known:
        audit.restore(known["audit"])
    for shard in set(shards) - set(standing):  # killed between a shard and the note of it
        (part / shard).unlink(missing_ok=True)
    return standing


def _replace(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


def _describe(
    part: Path, origin: dict[str, Any], before: Scores | None, after: Scores | None
) -> None:
    origin |= {
        "scores_before": asdict(before) if before else None,
        "scores": asdict(after) if after else None,
    }
    (part / PROVENANCE).write_text(json.dumps(origin, indent=2) + "\n")
    (part / "README.md").write_text(model_card(origin, before, after))
