"""Several defenses of one suspect: each run, written, measured and recorded once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from bdlit.defenses.base import Defense
from bdlit.errors import BdlitError
from bdlit.evaluation.result import UNDEFENDED, Result
from bdlit.evaluation.scores import Scores
from bdlit.purification.held import Held
from bdlit.purification.identity import identity_of
from bdlit.purification.purify import PROVENANCE, purify
from bdlit.purification.record import Records, Subject, defended, failed, undefended
from bdlit.purification.suspect import Suspect, Writing
from bdlit.ranks import shared, wait_for_all
from bdlit.types import Rate

if TYPE_CHECKING:
    from bdlit.evaluation.evaluate import NamedTests

Floor = Callable[[Scores], Mapping[str, Rate]]
"""Gives the ASR of a benign model per attack, from the suspect's own scores."""


@dataclass(kw_only=True)
class Series:
    """Defenses of one suspect, with one policy for all doors.

    What is finished is known by its record and its `provenance.json`, and not computed again. A
    defense that fails is recorded with its error, and the rest goes on; `failures` says what was
    said. Under a process group every process calls the same methods, and the first alone writes.

    Attributes:
        suspect: The suspect.
        subject: Who it is in the records.
        records: The results.
        folder: Where purified models are written, `<folder>/<defense>`; None writes none.
        tests: Test rows; None measures nothing.
        measured: What the scores depend on beside the model, ready for JSON.
        floor: How the floor of ASR is found.
        waits: Whether other processes may work on the same cells, so that one waits for another.
        renew: Whether a model that another identity has left in its place is computed anew; it is
            refused otherwise.
        label: What the suspect is called in error lines.
        failures: What was said of defenses that failed.
    """

    suspect: Suspect
    subject: Subject
    records: Records
    folder: Path | None = None
    tests: NamedTests | None = None
    measured: Mapping[str, Any] | None = None
    floor: Floor = lambda scores: {}
    waits: bool = False
    renew: bool = False
    label: str = ""
    failures: list[str] = field(default_factory=list)

    @property
    def results(self) -> list[Result]:
        """All that is recorded of the suspect."""
        return self.records.every(self.subject.victim, self.subject.seed)

    def before(self) -> Scores | None:
        """Return the suspect's scores, measured now unless they are recorded."""
        if self.tests is None:
            return None
        who = self.subject.victim, self.subject.seed
        known = shared(self.records.scores(*who))
        if known is None:
            known, _ = self.suspect.measure(self.tests)
            self.subject = replace(self.subject, floor=self.floor(known))
            self.records.add(undefended(self.subject, known))
        elif not self.subject.floor:
            self.subject = replace(self.subject, floor=shared(self.records.floor(*who)))
        return known

    def finished(self, name: str) -> bool:
        """Whether a defense has a record, or stands in its folder where nothing is measured."""
        if self.tests is None:
            return self.folder is not None and (self.folder / name / PROVENANCE).is_file()
        return name in self.records.of(self.subject.victim, self.subject.seed)

    def run(
        self,
        name: str,
        defense: Defense | Callable[[], tuple[Defense, Held]],
        held: Held | None = None,
        writing: Writing | None = None,
    ) -> Outcome:
        """Purify the suspect by one defense, write, measure and record it.

        Args:
            name: Name of the defense in folders and results.
            defense: The method, or what makes it with what is held for it.
            held: What is held.
            writing: How it is written.

        Returns:
            What came of it.
        """
        before = self.before()
        try:
            if callable(defense):
                defense, held = defense()
            return self._run(name, defense, held or Held(), writing or Writing(), before)
        except BdlitError as error:
            self.failures.append(f"{name} of {self.label or self.subject.victim}: {error}")
            if before is not None:
                found = failed(self.subject, before, defense=name, error=str(error))
                self.records.add(found)
            return Outcome(error=str(error))
        finally:
            wait_for_all()

    def _run(
        self, name: str, defense: Defense, held: Held, writing: Writing, before: Scores | None
    ) -> Outcome:
        out = self.folder / name if self.folder is not None else None
        identity = identity_of(self.suspect, defense, held, writing, self.measured) if out else {}
        with self._alone(name):
            origin = shared(self._known(name, out, identity))
            if origin is not None:
                if origin and before is not None and not self._recorded(name):
                    self.records.add(defended(self.subject, origin, before))
                return Outcome(origin=origin, known=True)
            found = purify(
                self.suspect,
                defense,
                held,
                name=name,
                tests=self.tests,
                before=before,
                out=out,
                writing=writing,
                work=self.folder / f".{name}.work" if self.folder is not None else None,
                measured=self.measured,
            )
            if before is not None:
                self.records.add(defended(self.subject, found.origin, before))
        return Outcome(origin=found.origin)

    def _alone(self, name: str) -> Any:
        """Hold a lock while a cell is computed, if another process may need it as well."""
        if self.folder is None or not self.waits:
            return nullcontext()
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / f".{name}.cell.lock")

    def _recorded(self, name: str) -> bool:
        return name in self.records.of(self.subject.victim, self.subject.seed)

    def _known(
        self, name: str, out: Path | None, identity: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """Return the provenance of this very purification, if it stands already.

        Raises:
            BdlitError: Something else stands in its place.
        """
        self.records.refresh()
        if out is None or not out.exists():
            # A record without a model: nothing was to be written when it was made.
            return {} if out is None and self._recorded(name) else None
        file = out / PROVENANCE
        origin: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
        if origin.get("identity") == identity:
            return origin
        if self.renew:
            if origin and "identity" not in origin and self._recorded(name):
                return origin  # of a version that wrote none
            shutil.rmtree(out)
            return None
        raise BdlitError(
            f"{out} exists already and holds something else: name another folder, or remove it"
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one defense.

    Attributes:
        origin: Content of `provenance.json`; empty where it failed.
        known: Whether an earlier run has finished it.
        error: What was said, where it failed.
    """

    origin: Mapping[str, Any] = field(default_factory=dict)
    known: bool = False
    error: str | None = None


def require_no_failure(failures: Sequence[str]) -> None:
    """Say at the end of a run that some of its defenses failed, so that it ends with exit code 2.

    Raises:
        BdlitError: There are failures.
    """
    if failures:
        count = "1 of the defenses" if len(failures) == 1 else f"{len(failures)} of the defenses"
        raise BdlitError(
            f"{count} failed, and run again with the same command; the first, {failures[0]}"
        )


def told(name: str, results: Sequence[Result]) -> str:
    """Return a line that says what was measured of a model.

    >>> told("WAG", [])
    '           WAG: not measured'
    """
    label = f"{'victim' if name == UNDEFENDED else name:>14}: "
    if not results:
        return f"{label}not measured"
    first = results[0]
    if first.error:
        return f"{label.strip()} failed: {first.error}"
    asr = "  ".join(
        f"{r.attack} {r.asr.percent:.1f} ({r.asr.hits}/{r.asr.n})" for r in results if r.asr
    )
    cacc = first.cacc.percent if first.cacc else float("nan")
    return f"{label}CACC {cacc:5.1f} | ASR {asr}"
