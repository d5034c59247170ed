"""One suspicious model, several defenses: each written, measured and recorded once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bdlit.atomic import whole_directory
from bdlit.defenses.base import Defense
from bdlit.errors import BdlitError
from bdlit.evaluation.result import (
    UNDEFENDED,
    Result,
    append_results,
    read_results,
    scores_of,
)
from bdlit.purification.held import ARCHIVE, Job
from bdlit.purification.measure import Measure
from bdlit.purification.opening import Parents
from bdlit.purification.run import Subject, record
from bdlit.purification.write import PROVENANCE, Writing, identity_of, purify_saved
from bdlit.types import Mean, Perplexity, Rate, Sample, Scores
from bdlit.weights import save_weights
from bdlit.weights.opening import RUN_FOLDERS

if TYPE_CHECKING:
    from bdlit.training.dynamics import TrainingSet

T = TypeVar("T")

_MEASURED = ("parameters", "given", "notes", "seconds", "peak_memory")

SUSPECT = "suspect"
"""Folder of a suspect that came as a Lightning checkpoint, in the form in which it can be run."""

UNKNOWN = "unknown"
"""The `train_attack` of a model that somebody else has trained."""


@dataclass(frozen=True)
class Case:
    """A suspect, its relatives, and the folder of what comes out.

    Attributes:
        parents: The suspect and the models beside it.
        folder: Gets `<defense>/` for each purified model and, with a measure, `results.jsonl`.
        measure: How models are measured; None measures nothing.
        benign: Folder of a model without a backdoor, for the floor of ASR.
        training: The suspect's untrusted training set, if it is at hand.
    """

    parents: Parents
    folder: Path
    measure: Measure | None = None
    benign: Path | None = None
    training: TrainingSet | None = None

    def purify(self, name: str, defense: Defense, writing: Writing) -> dict[str, Any] | None:
        """Run one defense, write the purified model, and record what was measured.

        Args:
            name: Folder of the purified model, and name in the results.
            defense: The method.
            writing: How to write it.

        Returns:
            The content of `provenance.json`; None if an earlier run has finished this.

        Raises:
            BdlitError: As `purify_saved`, or the folder holds something else.
        """
        before = self._before()
        job = self._job(name, defense)
        out = self.folder / name
        writing = replace(writing, measure=self.measure, before=before)
        identity = identity_of(self.parents.suspect, job, writing, self.parents.keep)
        known = _finished(out, identity)
        origin = known or purify_saved(
            self.parents.suspect,
            self._with_victim(job),
            out,
            writing,
            keep=self.parents.keep,
        )
        if before is not None and name not in self._recorded():
            self._record(name, origin, before)
        if job.workspace is not None:
            shutil.rmtree(job.workspace, ignore_errors=True)
        return None if known else origin

    @property
    def results(self) -> list[Result]:
        """All that was recorded so far, by this run and earlier ones."""
        return read_results(self._file) if self._file.exists() else []

    @property
    def _file(self) -> Path:
        return self.folder / "results.jsonl"

    def _recorded(self) -> dict[str, list[Result]]:
        found: dict[str, list[Result]] = {}
        for result in self.results:
            found.setdefault(result.defense, []).append(result)
        return found

    def _before(self) -> Scores | None:
        """Return the suspect's scores, measured now unless an earlier run has."""
        if self.measure is None:
            return None
        known = scores_of(self._recorded().get(UNDEFENDED, ()))
        if known is not None:
            return known
        scores, _ = self.measure(self._suspect_folder())
        floor = self.measure(self.benign)[0].asr if self.benign else {}
        append_results(self._file, record(self._subject(floor), scores))
        return scores

    def _record(self, name: str, origin: Mapping[str, Any], before: Scores) -> None:
        undefended = self._recorded()[UNDEFENDED]
        floor = {r.attack: r.floor for r in undefended if r.floor is not None}
        results = record(
            self._subject(floor),
            _scores(origin["scores"]),
            defense=name,
            before=before,
            merged=len(origin["merged"]),
            copied=len(origin["copied"]),
            **{key: origin[key] for key in _MEASURED},
        )
        append_results(self._file, results)

    def _job(self, name: str, defense: Defense) -> Job:
        if self.measure is None and {"victim", "clean", "finetune"} & set(defense.needs):
            rows = " with a clean_pool_size" if "clean" in defense.needs else ""
            raise BdlitError(f"{name} has to run the models on rows: give --data{rows}")
        return Job(
            name=name,
            defense=defense,
            others=self.parents.others,
            base=self.parents.base,
            clean=self.measure.data.clean_pool if self.measure else (),
            suspect_train=self.training,
            workspace=self.folder / f".{name}.work",
            archive=self.folder / ARCHIVE,
        )

    def _with_victim(self, job: Job) -> Job:
        """Load the suspect as a module, where the defense has to run it."""
        if self.measure is None or not {"victim", "finetune"} & set(job.defense.needs):
            return job
        return replace(job, victim=self.measure.victim(self._suspect_folder()))

    def _suspect_folder(self) -> Path:
        suspect = self.parents.suspect
        if suspect.folder is not None:
            return suspect.folder
        if suspect.lightning is None:
            raise BdlitError(
                f"{suspect.address} has no config.json beside it, so it cannot be run: give the "
                "directory of the model, or leave --data out"
            )
        exported = self.folder / SUSPECT
        if not exported.exists():
            with whole_directory(exported) as part:
                save_weights(suspect.weights, part)
                suspect.carry(part)
        return exported

    def _subject(self, floor: Mapping[str, Rate]) -> Subject:
        assert self.measure is not None
        data = self.measure.data
        return Subject(
            data=data.name,
            victim=short_name(self.parents.suspect.address),
            train_attack=UNKNOWN,
            seed=data.seed,
            config={"poisoning": data.poisoning},
            floor=floor,
        )


def short_name(address: str) -> str:
    """Return what a model is called in tables: its folder, or the run that the folder is of.

    >>> short_name("studies/sst2/models/badnet-seed0/model"), short_name("owner/name@main")
    ('badnet-seed0', 'owner/name@main')
    """
    path = Path(address)
    if path.name in RUN_FOLDERS and path.parent.name:
        return path.parent.name
    return path.name if path.exists() else address


def _finished(out: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the provenance of this very purification, if it stands already."""
    if not out.exists():
        return None
    file = out / PROVENANCE
    known: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    if known.get("identity") != identity:
        raise BdlitError(
            f"{out} exists already and holds something else: name another folder, or remove it"
        )
    return known


def _scores(plain: Mapping[str, Any]) -> Scores:
    own, false = plain.get("own_perplexity"), plain.get("false_triggers", {})
    samples = plain.get("samples", {})
    return Scores(
        Rate(**plain["cacc"]),
        _each(Rate, plain["asr"]),
        {attack: _each(Rate, cases) for attack, cases in false.items()},
        plain.get("judged", {}),
        {name: tuple(Sample(**each) for each in found) for name, found in samples.items()},
        _each(Perplexity, plain.get("perplexity", {})),
        Perplexity(**own) if own else None,
        _each(Mean, plain.get("coherence", {})),
        _each(Mean, plain.get("tasks", {})),
    )


def _each(kind: type[T], plain: Mapping[str, Any]) -> dict[str, T]:
    return {name: kind(**value) for name, value in plain.items()}
