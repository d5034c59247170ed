"""Records of a victim under two defenses, for the tests of the table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bdlit.evaluation.result import Result, append_results
from bdlit.report import Line
from bdlit.types import Rate

# Hits of 80 triggered rows, by seed. Seeds lie in no order, and TIES lacks one that WAG has.
TIES = {2: 48, 0: 8, 1: 16}
WAG = {0: 4, 2: 32, 1: 16, 5: 80}


def result(defense: str, seed: int, hits: int, *, victim: str = "badnet", n: int = 80) -> Result:
    attacked = victim != "benign"
    return Result(
        data="sst2",
        attack="badnet",
        victim=victim,
        defense=defense,
        seed=seed,
        train_attack=victim if attacked else "none",
        cacc=Rate(90 + seed, 100),
        asr=Rate(hits, n),
    )


def written(tmp_path: Path, *results: Result, **hits: Mapping[int, int]) -> Path:
    records = [result(name, seed, h) for name, own in hits.items() for seed, h in own.items()]
    append_results(tmp_path / "results.jsonl", [*records, *results])
    return tmp_path


def line_of(lines: list[Line], defense: str) -> Line:
    (line,) = [line for line in lines if line.defense == defense]
    return line
