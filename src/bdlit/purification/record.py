"""The records of a measured suspect: who it is, and one result for each attack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdlit.data.false_triggers import NO_ATTACK
from bdlit.evaluation.result import (
    UNDEFENDED,
    Result,
    append_results,
    read_results,
    results_of,
    scores_of,
)
from bdlit.evaluation.scores import Scores, scores_from_plain
from bdlit.types import Rate

if TYPE_CHECKING:
    from bdlit.evaluation.result import Key


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Who is measured: what every record of one victim has in common.

    Attributes:
        data: Name of the data set.
        victim: Name of the model.
        train_attack: Name of the attack on the model; `none` for a benign one.
        benign: Whether nobody attacked it, at any stage; None where nobody knows.
        seed: Seed of its training.
        config: Settings of victim, data and training.
        floor: ASR of a benign model per attack, where one is at hand.
    """

    data: str
    victim: str
    train_attack: str
    benign: bool | None
    seed: int
    config: Mapping[str, Any] = field(default_factory=dict)
    floor: Mapping[str, Rate] = field(default_factory=dict)


def undefended(subject: Subject, scores: Scores) -> list[Result]:
    """Return the records of a model as it was trained."""
    return results_of(scores, **_common(subject, scores))


def defended(subject: Subject, origin: Mapping[str, Any], before: Scores) -> list[Result]:
    """Return the records of a purified model, from the content of its `provenance.json`."""
    return results_of(
        scores_from_plain(origin["scores"]),
        defense=origin["name"],
        parameters=origin["parameters"],
        given=origin["given"],
        notes=origin["notes"],
        seconds=origin["seconds"],
        peak_memory=origin["peak_memory"],
        merged=len(origin["merged"]),
        copied=len(origin["copied"]),
        **{k: v for k, v in _common(subject, before).items() if k != "peak_memory"},
    )


def failed(subject: Subject, before: Scores, *, defense: str, error: str) -> list[Result]:
    """Return the records of a defense that failed: what was known before it, and why."""
    common = _common(subject, before)
    floors, asr = common.pop("floors"), common.pop("asr_before")
    return [
        Result(
            defense=defense,
            error=error,
            attack=attack,
            floor=floors.get(attack),
            asr_before=asr.get(attack),
            **common,
        )
        for attack in before.asr or [NO_ATTACK]
    ]


def _common(subject: Subject, before: Scores) -> dict[str, Any]:
    """Return what a record says that no defense has a part in."""
    from bdlit.evaluation.environment import circumstances

    return {
        "data": subject.data,
        "victim": subject.victim,
        "seed": subject.seed,
        "train_attack": subject.train_attack,
        "benign": subject.benign,
        "floors": subject.floor,
        "cacc_before": before.cacc,
        "asr_before": before.asr,
        "config": subject.config,
        **circumstances(),
    }


class Records:
    """The results of a run, read once, and added to as cells are finished.

    Args:
        path: The results file; None keeps results in memory alone, as every process of a group
            but the first does.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._found: dict[Key, Result] = {}
        self._size = 0
        self.refresh()

    def refresh(self) -> None:
        """Take up what other processes have appended."""
        if self.path is None or not self.path.exists():
            return
        size = self.path.stat().st_size
        if size != self._size:
            self._found = {result.key: result for result in read_results(self.path)}
            self._size = size

    def add(self, results: list[Result]) -> None:
        """Append results."""
        if self.path is not None:
            append_results(self.path, results)
            self._size = self.path.stat().st_size
        self._found |= {result.key: result for result in results}

    def of(self, victim: str, seed: int) -> dict[str, list[Result]]:
        """Return the finished cells of one model: its results by defense, without failures.

        A cell of which some records are missing is not finished: its write was cut off.
        """
        found: dict[str, list[Result]] = {}
        for result in self._found.values():
            if (result.victim, result.seed) == (victim, seed) and result.error is None:
                found.setdefault(result.defense, []).append(result)
        return {name: own for name, own in found.items() if len(own) >= own[-1].parts}

    def every(self, victim: str, seed: int) -> list[Result]:
        """Return all results of one model, failures among them."""
        found = self._found.values()
        return [r for r in found if (r.victim, r.seed) == (victim, seed)]

    def scores(self, victim: str, seed: int) -> Scores | None:
        """Return the scores of a model as it was trained, if they are known."""
        return scores_of(self.of(victim, seed).get(UNDEFENDED, ()))

    def floor(self, victim: str, seed: int) -> dict[str, Rate]:
        """Return the floor that is recorded beside a model, by attack."""
        found = self.of(victim, seed).get(UNDEFENDED, ())
        return {r.attack: r.floor for r in found if r.floor is not None}
