"""A search in words and numbers, ready for JSON."""

from __future__ import annotations

from typing import Any

from bdlit.defenses.gms.greedy import Candidate, Found
from bdlit.defenses.gms.search_space import SearchSpace


def summary_of(found: Found, space: SearchSpace) -> dict[str, Any]:
    """Return what a search found: the best state, how it compares, and how much was looked at."""
    best, looked_at = found.best, [c for step in found.steps for c in step.candidates]
    return {
        "replaced": space.replaced(best.state),
        "modules": space.modules,
        "layers": space.layers,
        "score": _score(best),
        "start_score": _score(found.start),
        "hits": {
            "victim": [found.victim.suspect.hits, found.victim.clean.hits],
            "start": _hits(found.start),
            "best": _hits(best),
        },
        "best_is": _place(found),
        "steps": len(found.steps),
        "candidates": 1 + len(looked_at),
        "given_up_early": sum(candidate.score is None for candidate in looked_at),
        "ended": found.ended,
    }


def trace_of(found: Found) -> dict[str, Any]:
    """Return every candidate of every step, with its hits and the rows looked at."""
    return {
        "start": _candidate(found.start),
        "steps": [
            {
                "chosen": list(step.chosen.dropped or ()),
                "candidates": [_candidate(candidate) for candidate in step.candidates],
            }
            for step in found.steps
        ],
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    suspect, clean = candidate.tally.suspect, candidate.tally.clean
    return {
        "dropped": list(candidate.dropped or ()),
        "suspect": [suspect.hits, suspect.n],
        "clean": [clean.hits, clean.n],
        "score": _score(candidate),
    }


def _place(found: Found) -> str:
    """Say where on its way the search found the best state."""
    if not all(found.best.state):
        return "the victim itself: nothing is replaced"
    if found.best.state == found.start.state:
        return "the start: everything is replaced"
    step = 1 + [step.chosen.state for step in found.steps].index(found.best.state)
    return f"step {step}"


def _hits(candidate: Candidate) -> list[int]:
    return [candidate.tally.suspect.hits, candidate.tally.clean.hits]


def _score(candidate: Candidate) -> float | None:
    return None if candidate.score is None else float(candidate.score)
