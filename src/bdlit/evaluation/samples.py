"""Samples of prompts and answers, on disk and side by side."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeAlias, TypeVar

from bdlit.data.false_triggers import CLEAN, attack_of
from bdlit.errors import BdlitError
from bdlit.evaluation.json_lines import append_lines, read_lines
from bdlit.types import Sample

SAMPLES = "samples.jsonl"
"""Name of the file beside the results, one sample a line."""

T = TypeVar("T")

Model: TypeAlias = tuple[str, str, str, int]
"""Whose answers they are: data, victim, defense, seed."""

Samples: TypeAlias = Mapping[str, Sequence[Sample]]
"""Name of a test set to some of its prompts with the answers."""


@dataclass(frozen=True)
class Compared:
    """One prompt, and what several models answered.

    Attributes:
        tests: Name of the test set.
        prompt: The prompt.
        wanted: What the answers were judged against.
        answers: Name of a defense, or `none`, to the sample of that model.
    """

    tests: str
    prompt: str
    wanted: str
    answers: dict[str, Sample] = field(default_factory=dict)


def about(attack: str, sets: Mapping[str, T]) -> dict[str, T]:
    """Return what is known of clean prompts, and of those of one attack with its cases.

    >>> list(about("cba", dict.fromkeys(["clean", "cba", "cba/swapped", "vpi"])))
    ['clean', 'cba', 'cba/swapped']
    """
    names = [name for name in sets if name == CLEAN or attack_of(name) == attack]
    return {name: sets[name] for name in names}


def side_by_side(answers: Iterable[tuple[str, Samples]]) -> list[Compared]:
    """Return the prompts of one victim with the answers of all its forms, in their order.

    Args:
        answers: Name of a defense, or `none`, with the samples of that model; a later one of the
            same name adds to an earlier one.

    >>> before, after = (Sample("2 + 2?", "4", text, text == "4") for text in ("cf", "4"))
    >>> (line,) = side_by_side([("none", {"clean": [before]}), ("WAG", {"clean": [after]})])
    >>> [f"{name}: {sample.response}" for name, sample in line.answers.items()]
    ['none: cf', 'WAG: 4']
    """
    found: dict[tuple[str, str, str], Compared] = {}
    for defense, samples in answers:
        for tests, each in samples.items():
            for sample in each:
                key = tests, sample.prompt, sample.wanted
                found.setdefault(key, Compared(*key)).answers[defense] = sample
    return list(found.values())


def append_samples(path: Path, samples: Mapping[Model, Samples]) -> None:
    """Append samples, one JSON object a line, and have them on the disk before returning."""
    names = ("data", "victim", "defense", "seed")
    lines = [
        json.dumps(
            {**dict(zip(names, model, strict=True)), "tests": tests, **asdict(sample)},
            ensure_ascii=False,
        )
        for model, sets in samples.items()
        for tests, each in sets.items()
        for sample in each
    ]
    if lines:
        append_lines(path, lines)


def read_samples(path: Path) -> dict[Model, dict[str, tuple[Sample, ...]]]:
    """Read a file of samples; of one model and prompt, the last answer wins.

    Raises:
        BdlitError: The file cannot be read, or a line is JSON but no sample.
    """
    found: dict[Model, dict[str, dict[tuple[str, str], Sample]]] = {}
    for model, tests, sample in _parse(path) if path.exists() else ():
        sets = found.setdefault(model, {})
        sets.setdefault(tests, {})[sample.prompt, sample.wanted] = sample
    return {
        model: {tests: tuple(each.values()) for tests, each in sets.items()}
        for model, sets in found.items()
    }


def _parse(path: Path) -> Iterator[tuple[Model, str, Sample]]:
    for number, record in read_lines(path, "samples"):
        try:
            model = (record["data"], record["victim"], record["defense"], record["seed"])
            names = ("prompt", "wanted", "response", "counts")
            yield model, record["tests"], Sample(**{name: record[name] for name in names})
        except (TypeError, KeyError) as error:
            raise BdlitError(f"{path}, line {number} is no sample: {error!r}") from error
