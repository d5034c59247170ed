"""The one record of a measurement, and the JSON Lines file that holds many of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

from bdlit.data.false_triggers import CLEAN, NO_ATTACK
from bdlit.errors import BdlitError
from bdlit.evaluation.json_lines import append_lines, read_lines
from bdlit.evaluation.measures import MEASURES, WithMeasures, beside
from bdlit.evaluation.samples import (
    SAMPLES,
    Model,
    Samples,
    about,
    append_samples,
    read_samples,
)
from bdlit.evaluation.scores import Scores
from bdlit.types import Rate, Sample

Key: TypeAlias = tuple[str, str, str, str, int]

UNDEFENDED = "none"
"""The `defense` of a record that measures a model as it was trained."""


@dataclass(frozen=True, kw_only=True)
class Result(WithMeasures):
    """One model, measured against one attack.

    A victim is measured against several triggers, so one model makes several records. Their
    clean accuracy is the same computation, repeated in each so that every line stands alone.

    Attributes:
        data: Name of the data set.
        attack: Name of the evaluation attack: whose trigger stands in the test rows.
        victim: Name of the model, e.g. `benign` or `badnet`.
        defense: Name of the defense, or `none` for the model as trained.
        seed: Seed of the model's training.
        train_attack: Name of the attack on the model; `none` for a benign one.
        benign: Whether nobody attacked the model, at any stage; None where nobody knows, and in
            records of versions that did not say.
        cacc: Clean accuracy, with counts.
        asr: Attack success rate on non-target rows, with counts.
        floor: ASR of a benign model on the same rows, where one was at hand.
        cacc_before: Clean accuracy of the undefended victim.
        asr_before: ASR of the undefended victim.
        judged: How responses were made and judged, for `cacc` and `asr`; empty of classifiers.
            Rates that were judged in different ways are different measures.
        samples: Test set (`clean`, the attack, its cases) to a few prompts with the answers; they
            are kept in a file of their own beside the results.
        measures: Name of a measure in the table (`bdlit.evaluation.measures`) to its value for this
            attack, or to its values by name; each is also an attribute, and in the file a field of
            the record itself.
        parameters: Settings of the defense.
        given: What the defender was given: the names of the others, the base, counts of rows.
        merged: Number of tensors computed from several models.
        copied: Number of tensors that stayed the victim's.
        notes: What the method said of its run.
        seconds: Wall time of the defense, without its evaluation.
        peak_memory: Peak resident memory of the process while the defense ran, without its
            evaluation, in bytes; of the model as trained, that of its evaluation.
        config: Settings of the victim, the data and the training.
        versions: Versions of the libraries that matter.
        commit: Version-control commit of the working directory, where there is one.
        created: Time of the measurement, ISO 8601, UTC.
        error: Why there are no numbers, where a defense failed.
        parts: Number of records that the measurement of the model made, one for each attack; 0 in
            records of versions that did not say. Where some are missing, a write was cut off.
    """

    of_attack = True

    data: str
    attack: str
    victim: str
    defense: str
    seed: int
    train_attack: str = "none"
    benign: bool | None = None
    cacc: Rate | None = None
    asr: Rate | None = None
    floor: Rate | None = None
    cacc_before: Rate | None = None
    asr_before: Rate | None = None
    judged: Mapping[str, Any] = field(default_factory=dict)
    samples: Samples = field(default_factory=dict)
    measures: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)
    merged: int = 0
    copied: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    peak_memory: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None
    created: str = ""
    error: str | None = None
    parts: int = 0

    @property
    def key(self) -> Key:
        """What makes a record unique; a later record of the same key replaces an earlier one."""
        return self.data, self.attack, self.victim, self.defense, self.seed

    @property
    def model(self) -> Model:
        """Which model it is about, whatever the attack that it was measured against."""
        return self.data, self.victim, self.defense, self.seed

    @property
    def excess(self) -> float | None:
        """ASR above the benign floor, in percentage points."""
        if self.asr is None or self.floor is None:
            return None
        return self.asr.percent - self.floor.percent


_RATES = ("cacc", "asr", "floor", "cacc_before", "asr_before")


def scores_of(results: Iterable[Result]) -> Scores | None:
    """Return the scores that the records of one measured model hold, or None if they hold none."""
    found = list(results)
    if not found or found[0].cacc is None:
        return None
    judged = {CLEAN: found[0].judged.get("cacc"), **{r.attack: r.judged.get("asr") for r in found}}
    read = {m.key: m.gathered({r.attack: getattr(r, m.key) for r in found}) for m in MEASURES}
    return Scores(
        cacc=found[0].cacc,
        asr={r.attack: r.asr for r in found if r.asr is not None},
        judged={name: how for name, how in judged.items() if how},
        measures={key: value for key, value in read.items() if value},
    )


def results_of(
    scores: Scores,
    *,
    asr_before: Mapping[str, Rate],
    floors: Mapping[str, Rate],
    defense: str = UNDEFENDED,
    **common: Any,
) -> list[Result]:
    """Return one result for each evaluation attack of a measured model, or one if there is none.

    Args:
        scores: What was measured.
        asr_before: ASR of the undefended victim, by attack.
        floors: ASR of a benign model, by attack.
        defense: Name of the defense.
        common: Fields of `Result` that all of them share.
    """
    measured: Mapping[str, Rate | None] = scores.asr or {NO_ATTACK: None}
    return [
        Result(
            defense=defense,
            attack=attack,
            cacc=scores.cacc,
            asr=asr,
            floor=floors.get(attack),
            asr_before=asr_before.get(attack),
            judged=_judged(scores, attack),
            samples=about(attack, scores.samples),
            measures=_narrowed(scores, attack),
            parts=len(measured),
            **common,
        )
        for attack, asr in measured.items()
    ]


def _narrowed(scores: Scores, attack: str) -> dict[str, Any]:
    found = {m.key: m.narrowed(getattr(scores, m.key), attack) for m in MEASURES}
    return {key: value for key, value in found.items() if value}


def _judged(scores: Scores, attack: str) -> dict[str, Any]:
    found = {"cacc": scores.judged.get(CLEAN), "asr": scores.judged.get(attack)}
    return {measure: how for measure, how in found.items() if how}


def append_results(path: Path, results: Iterable[Result]) -> None:
    """Append records, one JSON object a line, and have them on the disk before returning.

    Their samples go into `samples.jsonl` beside the file, before the records.
    """
    results = list(results)
    samples: dict[Model, dict[str, Sequence[Sample]]] = {}
    for result in results:  # the clean samples of a model stand in each of its records
        samples.setdefault(result.model, {}).update(result.samples)
    append_samples(path.with_name(SAMPLES), samples)
    records = [_record(result) for result in results]
    append_lines(path, [json.dumps(record, ensure_ascii=False) for record in records])


def _record(result: Result) -> dict[str, Any]:
    """Return a result as a flat record, without its samples."""
    record = asdict(replace(result, samples={}, measures={}))
    del record["samples"]
    return beside(record, {m.key: m.plain(getattr(result, m.key)) for m in MEASURES})


def read_results(path: Path) -> list[Result]:
    """Read a results file; the last record of a key wins, and torn lines are left out.

    Samples are read from the file beside it.

    Raises:
        BdlitError: The file cannot be read, or a line is JSON but no result.
    """
    results = {result.key: result for result in _parse(path)}.values()
    samples = read_samples(path.with_name(SAMPLES))
    return [replace(r, samples=about(r.attack, samples.get(r.model, {}))) for r in results]


def _parse(path: Path) -> Iterator[Result]:
    names = {f.name for f in fields(Result)} - {"measures"}
    for number, record in read_lines(path, "results"):
        try:
            for name in _RATES:
                if record.get(name) is not None:
                    record[name] = Rate(**record[name])
            read = {m.key: m.from_plain(record.get(m.key), record=True) for m in MEASURES}
            # Fields of later versions are left out, so that old code reads new files.
            own = {name: value for name, value in record.items() if name in names}
            yield Result(**own, measures={key: value for key, value in read.items() if value})
        except (TypeError, AttributeError) as error:
            raise BdlitError(f"{path}, line {number} is not a result: {error}") from error
