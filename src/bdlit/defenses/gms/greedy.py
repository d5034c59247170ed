"""The greedy search of GMS: what is replaced shrinks step by step, and the best seen wins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from bdlit.defenses.gms.options import Compat
from bdlit.defenses.gms.score import Score, Tally
from bdlit.errors import BdlitError

Element: TypeAlias = str | int
"""One thing that can be dropped: a module type, a layer, or a single cell by its name."""

State: TypeAlias = tuple[tuple[Element, ...], ...]
"""What is replaced: the elements left on each axis, in the order of the axis."""

CountAll: TypeAlias = Callable[[Sequence[State], Score], "list[Tally]"]
"""From the candidates of a step to their tallies, in order. A tally may be incomplete where its
candidate can no longer be the first among the best of the step."""


@dataclass(frozen=True)
class Candidate:
    """One state that was looked at.

    Attributes:
        dropped: Axis and element that it lacks, compared with the state before; None at the start.
        state: What it replaces.
        tally: Its hits; incomplete where it was given up early.
        score: Its score; None where it was given up.
    """

    dropped: tuple[str, Element] | None
    state: State
    tally: Tally
    score: Fraction | None


@dataclass(frozen=True)
class Step:
    """All candidates of one step, in the order that decides ties, and the one moved to."""

    candidates: tuple[Candidate, ...]
    chosen: Candidate


@dataclass(frozen=True)
class Found:
    """What a search found, and how it came there.

    Attributes:
        best: The state with the highest score ever seen.
        start: The state with everything replaced.
        steps: The trace.
        ended: Why the search ended.
        victim: The victim's own tally.
    """

    best: Candidate
    start: Candidate
    steps: tuple[Step, ...]
    ended: str
    victim: Tally


def greedy_search(
    axes: Mapping[str, Sequence[Element]],
    count: CountAll,
    score: Score,
    *,
    patience: int = 5,
    compat: Compat = "encoder",
    watch: Callable[[Step, Candidate], None] = lambda step, best: None,
) -> Found:
    """Shrink what is replaced, from everything on, and return the best state seen.

    A step tries to drop each element of each axis, and moves to the candidate of the highest
    score, even if it is worse than the state before. Ties go to the first candidate: axes in
    order, elements in order. What is replaced is the product of the axes, so an empty axis is the
    victim itself, and ends the search.

    Args:
        axes: Names of the axes to their elements, e.g. module types and layers.
        count: Looks at the candidates of a step.
        score: What to maximise.
        patience: How many steps without improvement end the search; at least 1. A step improves if
            its state is a new best, or better than the state before.
        compat: `encoder` is the rule of the published code for encoders. `decoder` is that of its
            code for decoders: one element of each axis stays, the start itself cannot win, and
            only a new best counts as improvement. (It also scores absolute drops; that is
            `Score(relative=False)`.)
        watch: Called after each step, with the best so far.

    Raises:
        BdlitError: An axis has no element, or `patience` is below 1.

    Reference: Tong et al. 2025, arXiv:2412.20476, algorithm 1.
    Deviation: The order that decides ties is fixed; in the published code it is that of a Python
        set.
    """
    if patience < 1:
        raise BdlitError(f"patience {patience} is out of range: give at least 1")
    for name, elements in axes.items():
        if not elements:
            raise BdlitError(f"there are no {name} to search over: name at least one")
    state: State = tuple(tuple(elements) for elements in axes.values())
    start = _looked_at([(None, state)], count, score)[0]
    assert start.score is not None
    least = 1 if compat == "decoder" else 0
    best = start if compat == "encoder" else None
    steps: list[Step] = []
    before, waited, ended = start.score, 0, "nothing is left to drop"
    while drops := list(_drops(axes, state, least)):
        candidates = _looked_at(drops, count, score)
        chosen = _first_best(candidates)
        assert chosen.score is not None
        new_best = best is None or best.score is None or chosen.score > best.score
        if new_best:
            best = chosen
        rose = chosen.score > before and compat == "encoder"
        waited = 0 if new_best or rose else waited + 1
        state, before = chosen.state, chosen.score
        steps.append(Step(tuple(candidates), chosen))
        assert best is not None
        watch(steps[-1], best)
        if waited >= patience:
            ended = f"{patience} step{'s' * (patience > 1)} without improvement"
            break
    return Found(best or start, start, tuple(steps), ended, score.victim)


def _drops(
    axes: Mapping[str, Sequence[Element]], state: State, least: int
) -> Iterator[tuple[tuple[str, Element], State]]:
    """Give every element that can be dropped, and the state without it."""
    if not all(state):
        return  # nothing is replaced any more
    for place, (name, elements) in enumerate(zip(axes, state, strict=True)):
        if len(elements) <= least:
            continue
        for element in elements:
            rest = tuple(other for other in elements if other != element)
            yield (name, element), (*state[:place], rest, *state[place + 1 :])


def _looked_at(
    drops: Sequence[tuple[tuple[str, Element] | None, State]], count: CountAll, score: Score
) -> list[Candidate]:
    tallies = count([state for _, state in drops], score)
    return [
        Candidate(dropped, state, tally, score.of(tally) if score.complete(tally) else None)
        for (dropped, state), tally in zip(drops, tallies, strict=True)
    ]


def _first_best(candidates: Sequence[Candidate]) -> Candidate:
    complete = [c for c in candidates if c.score is not None]
    return max(complete, key=lambda c: c.score if c.score is not None else 0)  # the first of ties
