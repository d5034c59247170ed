"""The suspect set and the clean set of GMS: where their rows come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from bdlit.data.conversations import Columns
from bdlit.data.source import local_table
from bdlit.data.tables import TableLayout
from bdlit.defenses.gms.proxy_rows import (
    ProxyRows,
    count_poisoned,
    drawn,
    drawn_positions,
    highest,
    most_suspicious,
    require_classes,
)
from bdlit.defenses.gms.row_sources import ORACLE, POOL, RANKINGS, is_file
from bdlit.errors import BdlitError
from bdlit.progress import progress
from bdlit.types import Example

if TYPE_CHECKING:
    from torch import Tensor

    from bdlit.training.dynamics import Oracle, TrainingSet
    from bdlit.victims.base import Victim

RowsFrom: TypeAlias = str
"""One of `bdlit.defenses.gms.row_sources`, or a file of rows."""


@dataclass(frozen=True)
class Given:
    """What proxy sets are chosen from.

    Attributes:
        victim: The suspect as a module, on its device.
        training: Its untrusted training set, if it is at hand.
        oracle: Which of its rows are poisoned, if that is known.
        pool: Trusted clean rows, if there are any.
        start: Puts the search's first hybrid, with everything replaced, in the victim's place.
    """

    victim: Victim
    training: TrainingSet | None
    oracle: Oracle | None
    pool: Sequence[Example] | None
    start: Callable[[], AbstractContextManager[object]]


def suspect_set(given: Given, source: RowsFrom, count: int, seed: int) -> ProxyRows:
    """Choose training rows that look poisoned.

    Raises:
        BdlitError: There is no training set, or it has too few rows; or the file is no table.
    """
    if is_file(source):
        return _from_file(source, given.victim, count, seed, "suspect")
    training = _training(given, f"suspect_from={source}")
    if source == ORACLE:
        truth = _oracle(given)
        turned = _positions(truth.turned) or _positions(truth.poisoned)
        chosen = [turned[i] for i in drawn_positions(len(turned), count, seed, "suspect")]
        return _of(training, chosen, "true poisoned rows (oracle)")
    for ranking in RANKINGS:
        if ranking == source:
            certainty, where = _certainty(given, training)
            how = f"training rows ranked by {ranking}, {where}"
            return _of(training, most_suspicious(certainty, count, ranking), how)
    how = "training rows that the suspect is surer of than the first hybrid"
    return _of(training, _disputed(given, training, count), how)


def clean_set(
    given: Given, source: RowsFrom, count: int, seed: int, *, poison: float = 0.0
) -> ProxyRows:
    """Choose rows to measure accuracy on.

    Args:
        given: What they are chosen from.
        source: How.
        count: How many.
        seed: Seed of the draw.
        poison: Share of true poisoned rows among those of the oracle, in [0, 1).

    Raises:
        BdlitError: There is no such source, or it has too few rows, or one class or answer only.
    """
    chosen = _clean_set(given, source, count, seed, poison)
    require_classes(chosen)
    return chosen


def _clean_set(given: Given, source: RowsFrom, count: int, seed: int, poison: float) -> ProxyRows:
    if is_file(source):
        return _from_file(source, given.victim, count, seed, "clean")
    if source == POOL:
        if not given.pool:
            raise BdlitError(
                "clean_from=pool needs trusted rows: set the data's clean_pool_size (200, say)"
            )
        rows = drawn(given.pool, min(count, len(given.pool)), seed, "clean")
        return ProxyRows(rows, "pool", poisoned=0)
    training = _training(given, f"clean_from={source}")
    if source == ORACLE:
        bad = round(poison * count)
        truth = _oracle(given)
        clean = _positions([not mark for mark in truth.poisoned])
        chosen = [clean[i] for i in drawn_positions(len(clean), count - bad, seed, "clean")]
        if not bad:
            return _of(training, chosen, "true clean rows (oracle)")
        poisoned = _positions(truth.poisoned)
        drawn_bad = drawn_positions(len(poisoned), bad, seed, "poisoned clean")
        chosen += [poisoned[i] for i in drawn_bad]
        return _of(training, chosen, f"true clean rows, {poison:.0%} poison (oracle)")
    chosen = drawn_positions(len(training.rows), count, seed, "clean")
    return _of(training, chosen, "drawn from the training set")


def _of(training: TrainingSet, positions: Sequence[int], source: str) -> ProxyRows:
    return ProxyRows([training.rows[i] for i in positions], source, positions)


def _positions(marks: Sequence[bool]) -> list[int]:
    return [position for position, marked in enumerate(marks) if marked]


def _oracle(given: Given) -> Oracle:
    if given.oracle is None:
        raise BdlitError("the oracle needs training rows that are marked as poisoned; none is")
    return given.oracle


def _training(given: Given, setting: str) -> TrainingSet:
    if given.training is None:
        raise BdlitError(
            f"GMS with {setting} needs the suspect's training set: give it as the data's "
            "poisoned_train, or files of rows as suspect_from and clean_from"
        )
    return given.training


def _disputed(given: Given, training: TrainingSet, count: int) -> list[int]:
    """Return the rows whose certainty falls most when the proxy's modules take over.

    What the suspect has learned and a clean model of the task denies is poison, or noise.
    """
    suspect = _measured(given, training)
    with given.start():
        hybrid = _measured(given, training)
    return highest(suspect - hybrid, count)


def _certainty(given: Given, training: TrainingSet) -> tuple[Tensor, str]:
    """Return logged dynamics, or the certainty of the suspect as it is, in one column."""
    if training.certainty is not None:
        return training.certainty, f"over {training.certainty.shape[1]} epochs"
    return _measured(given, training)[:, None], "by the suspect as it is"


def _measured(given: Given, training: TrainingSet) -> Tensor:
    """Return how certain the network, as it is now, is of every training row."""
    from bdlit.training.dynamics import measure_certainty

    with progress("ranking the training rows") as tell:
        return measure_certainty(given.victim, training.rows, watch=tell)


def _from_file(source: str, victim: Victim, count: int, seed: int, name: str) -> ProxyRows:
    """Read rows with `text`, `label`, and perhaps `text_pair` and `poisoned`; or instructions."""
    table = local_table(Path(source))
    if victim.labels is None:  # a language model
        rows = Columns().read(table)
    else:
        pair = ("text_pair",) if "text_pair" in table.columns else ()
        rows = TableLayout(text_pair=pair).read(table, victim.labels)
    rows = drawn(rows, min(count, len(rows)), seed, name)
    known = count_poisoned(rows, "poisoned" in table.columns)
    return ProxyRows([row.unmarked for row in rows], Path(source).name, poisoned=known)
