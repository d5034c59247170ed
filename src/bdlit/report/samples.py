"""The answers of a victim before and after its defenses, for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bdlit.evaluation.samples import SAMPLES, Compared, about, read_samples, side_by_side
from bdlit.report.row import Row


@dataclass(frozen=True)
class Answers:
    """The samples of one victim.

    Attributes:
        data: Name of the data set.
        victim: Name of the model.
        seed: Seed of its training.
        run: The folder that they were read from.
        prompts: Prompts, each with the answers of the victim and of its purified forms.
    """

    data: str
    victim: str
    seed: int
    run: str
    prompts: list[Compared]


def samples_of(rows: Sequence[Row]) -> list[Answers]:
    """Return the samples that lie beside measurements, one group for each victim that has some.

    Raises:
        BdlitError: A file of samples cannot be read.
    """
    files = {run: read_samples(Path(run) / SAMPLES) for run in dict.fromkeys(r.run for r in rows)}
    victims = dict.fromkeys((row.run, row.data, row.victim, row.seed) for row in rows)
    found = []
    for run, data, victim, seed in victims:
        own = [r for r in rows if (r.run, r.data, r.victim, r.seed) == (run, data, victim, seed)]
        prompts = side_by_side(
            (r.defense, about(r.attack, files[run].get((data, victim, r.defense, seed), {})))
            for r in own
        )
        if prompts:
            found.append(Answers(data, victim, seed, run, prompts))
    return found
