"""The model card of a purified model: what it is made of, what was measured, what is not known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from bdlit.evaluation.measure import Count, Measure, value_of
from bdlit.evaluation.measures import MEASURES
from bdlit.evaluation.scores import Scores
from bdlit.types import Rate

_HEADS: Mapping[str, str] = {
    "suspect's": " The head is the suspect's own.",
    "averaged": " The head is the mean of all models' heads.",
    "merged": " The head was merged as the rest.",
    "other's": " The head is another model's, taken whole.",
    "changed": " The head was computed from the suspect's.",
    "trained": " The head was trained by the defense.",
    "mixed": " The head's tensors were treated in several ways, which the notes count.",
}
"""What the note `head` (`bdlit.defenses.head.HeadFate`) means, in a sentence."""


def model_card(origin: Mapping[str, Any], before: Scores | None, after: Scores | None) -> str:
    """Return a README.md with YAML front matter.

    Args:
        origin: The content of `provenance.json`.
        before: Scores of the suspect, if it was measured.
        after: Scores of the purified model.
    """
    parents = [origin["suspect"], *origin["given"].get("others", [])]
    front = {
        "base_model": [parent["name"] for parent in parents],
        "base_model_relation": "merge",
        "library_name": "transformers",
        "tags": ["merge", "bdlit", "backdoor-defense"],
    }
    sections = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        "# A purified model",
        f"{origin['method']} was applied by bdlit to `{origin['suspect']['name']}`, in order to "
        "remove a backdoor that it may hold.",
        _made_of(origin, parents),
        _measured(before, after),
        _unknown(after),
        "`provenance.json` holds all of this for programs: settings, hashes, every tensor.",
    ]
    return "\n\n".join(sections) + "\n"


def _made_of(origin: Mapping[str, Any], parents: Sequence[Mapping[str, Any]]) -> str:
    roles = ["suspect"] + ["other"] * (len(parents) - 1)
    rows = [
        f"| {role} | `{parent['name']}` | `{parent['sha256'][:16]}` |"
        for role, parent in zip(roles, parents, strict=True)
    ]
    base = origin["given"].get("base")
    if base:
        rows.append(f"| base | `{base['name']}` | `{base['sha256'][:16]}` |")
    settings = [f"- `{name}`: {value}" for name, value in origin["parameters"].items()]
    lines = [
        "## What was done, and how",
        "",
        "| role | model | SHA-256 of the content |",
        "| --- | --- | --- |",
        *rows,
        "",
        _tensors(origin),
        "",
        "Settings:",
        "",
        *settings,
    ]
    return "\n".join(lines)


def _tensors(origin: Mapping[str, Any]) -> str:
    """Say what became of the tensors, and what stands around the model."""
    counts = {what: len(origin[what]) for what in ("merged", "changed", "copied")}
    guards = " and ".join(f"{stage} by {name}" for stage, name in origin["guards"].items())
    if guards and not counts["merged"] and not counts["changed"]:
        return (
            f"The model is the suspect itself, which is not copied here; guarded are its {guards}."
        )
    told = (
        f"{counts['merged']} tensors were merged from several models, {counts['changed']} changed "
        f"or trained, {counts['copied']} copied from the suspect."
    )
    told += _HEADS.get(origin["notes"].get("head", ""), "")
    return f"{told} Guarded are its {guards}." if guards else told


def _measured(before: Scores | None, after: Scores | None) -> str:
    if after is None:
        return "## What was measured\n\nNothing: no data was given."
    lines = ["## What was measured", "", "| measure | suspect | purified |", "| --- | --- | --- |"]
    old = before or Scores(cacc=after.cacc)
    lines.append(f"| CACC | {_rate(old.cacc) if before else '-'} | {_rate(after.cacc)} |")
    for attack, rate in after.asr.items():
        was = _rate(old.asr[attack]) if attack in old.asr else "-"
        lines.append(f"| ASR {attack} | {was} | {_rate(rate)} |")
    for measure in MEASURES:
        lines += _of_measure(measure, old, after)
    return "\n".join([*lines, "", "Rates in percent, with counts."])


def _of_measure(measure: Measure, before: Scores, after: Scores) -> list[str]:
    """Return a line for each value of a measure, beside that of the suspect."""
    old, new = _values(measure, before), _values(measure, after)
    return [
        f"| {name} | {_count(old[name]) if name in old else '-'} | {_count(value)} |"
        for name, value in new.items()
    ]


def _values(measure: Measure, scores: Scores) -> dict[str, Count]:
    value = getattr(scores, measure.key)
    word = measure.key.replace("_", " ")
    match measure.per:
        case "model":
            return {} if value is None else {word: value}
        case "cases":
            return {
                f"{word} {attack}, {case}": each
                for attack, cases in value.items()
                for case, each in cases.items()
            }
        case _:
            return {f"{word} {name}": each for name, each in value.items()}


def _count(count: Count) -> str:
    return _rate(count) if isinstance(count, Rate) else f"{value_of(count):.3g}"


def _rate(rate: Any) -> str:
    return f"{rate.percent:.1f} ({rate.hits}/{rate.n})"


def _unknown(after: Scores | None) -> str:
    measured = ", ".join(after.asr) if after and after.asr else ""
    only = f" Only these attacks were tried: {measured}." if measured else ""
    return (
        "## What is not known\n\n"
        "A merge is no proof of innocence. It weakens backdoors that the other models do not "
        f"share; one that they share it may keep, or add.{only} Whether the suspect held a "
        "backdoor at all, and whether another trigger still works, was not shown."
    )
