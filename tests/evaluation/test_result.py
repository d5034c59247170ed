"""The results file: whole records in, whole records out, whatever happened in between."""

from __future__ import annotations

import json
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from bdlit.errors import BdlitError
from bdlit.evaluation.result import Result, append_results, read_results, scores_of
from bdlit.types import Rate

RECORD = Result(
    data="sst2",
    attack="badnet",
    victim="badnet",
    defense="WAG",
    seed=3,
    train_attack="badnet",
    cacc=Rate(90, 100),
    asr=Rate(30, 80),
    floor=Rate(8, 80),
    cacc_before=Rate(91, 100),
    asr_before=Rate(80, 80),
    parameters={"weights": [0.5, 0.5]},
    given={"others": ["benign"]},
    merged=12,
    copied=2,
    notes={"ü": None},
    seconds=1.5,
    config={"lr": 2e-5},
    versions={"torch": "2.13"},
    created="2026-01-01T00:00:00Z",
)


def test_records_come_back_equal(tmp_path: Path) -> None:
    failed = replace(RECORD, seed=4, asr=None, cacc=None, error="others have other shapes")
    append_results(tmp_path / "new" / "results.jsonl", [RECORD, failed])
    assert read_results(tmp_path / "new" / "results.jsonl") == [RECORD, failed]


def test_excess_by_hand() -> None:
    assert RECORD.excess == 37.5 - 10.0
    assert replace(RECORD, floor=None).excess is None
    assert replace(RECORD, asr=None).excess is None


def test_later_record_of_a_key_wins(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    better = replace(RECORD, asr=Rate(10, 80), created="2026-01-02T00:00:00Z")
    append_results(path, [RECORD, replace(RECORD, seed=4)])
    append_results(path, [better])
    assert read_results(path) == [better, replace(RECORD, seed=4)]


def test_torn_line_is_left_out_and_spares_its_neighbours(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append_results(path, [RECORD, replace(RECORD, seed=4)])
    path.write_bytes(path.read_bytes()[:-40])  # the second write was interrupted
    append_results(path, [replace(RECORD, seed=5)])
    assert [result.seed for result in read_results(path)] == [3, 5]


def test_fields_of_later_versions_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append_results(path, [RECORD])
    record = json.loads(path.read_text().strip()) | {"toxicity": 12.5}
    path.write_text(json.dumps(record))
    assert read_results(path) == [RECORD]


def test_fields_of_earlier_versions_get_their_defaults(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text('{"data": "d", "attack": "a", "victim": "v", "defense": "none", "seed": 0}\n')
    (result,) = read_results(path)
    assert (result.train_attack, result.asr, result.error) == ("none", None, None)


@pytest.mark.parametrize("line", ['{"data": "sst2"}', "[1, 2]", '{"asr": {"share": 0.5}}'])
def test_what_is_no_result_names_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "results.jsonl"
    append_results(path, [RECORD])
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(BdlitError, match=r"results\.jsonl, line 2 is not a result"):
        read_results(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BdlitError, match=r"cannot read results from .*none\.jsonl"):
        read_results(tmp_path / "none.jsonl")


def _append_many(path: Path, shard: int) -> None:
    for seed in range(40):
        append_results(path, [replace(RECORD, victim=f"shard-{shard}", seed=seed)])


def test_shards_append_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    context = get_context("fork")
    shards = [context.Process(target=_append_many, args=(path, shard)) for shard in range(3)]
    for shard in shards:
        shard.start()
    for shard in shards:
        shard.join()
    assert len({result.key for result in read_results(path)}) == 3 * 40


def test_false_triggers_and_how_responses_were_judged_come_back(tmp_path):
    how = {"cacc": {"by": "generation", "rule": "Equals()"}, "asr": {"rule": "Contains()"}}
    made = Result(
        data="d",
        attack="cba",
        victim="v",
        defense="none",
        seed=0,
        cacc=Rate(3, 4),
        asr=Rate(2, 4),
        measures={"false_triggers": {"clean": Rate(0, 4), "first alone": Rate(1, 4)}},
        judged=how,
    )
    append_results(tmp_path / "results.jsonl", [made])
    assert read_results(tmp_path / "results.jsonl") == [made]
    scores = scores_of([made])
    assert scores.false_triggers == {"cba": made.false_triggers}
    assert scores.judged == {"clean": how["cacc"], "cba": how["asr"]}
    assert scores_of([]) is None
