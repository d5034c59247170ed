"""Scores as plain data, for the record beside a purified model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from bdlit.types import Mean, Perplexity, Rate, Sample, Scores

T = TypeVar("T")


def scores_to_plain(scores: Scores) -> dict[str, Any]:
    """Return scores as plain data, ready for JSON."""
    return asdict(scores)


def scores_from_plain(plain: Mapping[str, Any]) -> Scores:
    """Return scores from what `scores_to_plain` made of them."""
    own, false = plain.get("own_perplexity"), plain.get("false_triggers", {})
    samples = plain.get("samples", {})
    return Scores(
        Rate(**plain["cacc"]),
        _each(Rate, plain["asr"]),
        {attack: _each(Rate, cases) for attack, cases in false.items()},
        plain.get("judged", {}),
        {name: tuple(Sample(**_as(each)) for each in found) for name, found in samples.items()},
        _each(Perplexity, plain.get("perplexity", {})),
        Perplexity(**own) if own else None,
        _each(Mean, plain.get("coherence", {})),
        _each(Mean, plain.get("tasks", {})),
    )


def _as(sample: Any) -> dict[str, Any]:
    return dict(sample)


def _each(kind: type[T], plain: Mapping[str, Any]) -> dict[str, T]:
    return {name: kind(**value) for name, value in plain.items()}
