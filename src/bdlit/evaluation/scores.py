"""What a model does: clean accuracy, attack success, and the measures of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bdlit.evaluation.measures import MEASURES, WithMeasures, beside
from bdlit.types import Rate, Sample


@dataclass(frozen=True)
class Scores(WithMeasures):
    """What a model does: clean accuracy, and attack success per evaluation attack.

    Attributes:
        cacc: Clean accuracy.
        asr: Attack name to the share of triggered non-target rows predicted as the target.
        judged: Name of a test set to how its rows were judged (rule, decoding, prompts); empty
            for classifiers, whose class is read off.
        samples: Name of a test set to a few of its prompts with the model's answers.
        measures: Name of a measure in the table to its value, or to its values by name; each is
            also an attribute.
    """

    cacc: Rate
    asr: Mapping[str, Rate] = field(default_factory=dict)
    judged: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    samples: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    measures: Mapping[str, Any] = field(default_factory=dict)


def scores_to_plain(scores: Scores) -> dict[str, Any]:
    """Return scores as plain data, ready for JSON: measures stand beside CACC and ASR."""
    record = {
        "cacc": asdict(scores.cacc),
        "asr": {attack: asdict(rate) for attack, rate in scores.asr.items()},
        "judged": dict(scores.judged),
        "samples": {n: [asdict(each) for each in drawn] for n, drawn in scores.samples.items()},
        "measures": scores.measures,
    }
    return beside(record, {m.key: m.plain(getattr(scores, m.key)) for m in MEASURES})


def scores_from_plain(plain: Mapping[str, Any]) -> Scores:
    """Return scores from what `scores_to_plain` made of them; what they lack was not measured."""
    samples = plain.get("samples", {})
    read = {m.key: m.from_plain(plain.get(m.key), record=False) for m in MEASURES}
    return Scores(
        cacc=Rate(**plain["cacc"]),
        asr={attack: Rate(**rate) for attack, rate in plain["asr"].items()},
        judged=plain.get("judged", {}),
        samples={name: tuple(Sample(**each) for each in found) for name, found in samples.items()},
        measures={key: value for key, value in read.items() if value},
    )
