"""From records to lines: floors, seeds, filters and order, by hand-worked numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import binomtest, sem, t

from bdlit.errors import BdlitError
from bdlit.evaluation.intervals import Interval
from bdlit.evaluation.result import Result, append_results
from bdlit.report import Row, aggregate, collect, compare_table, select
from bdlit.report.baselines import fill_baselines
from bdlit.types import Rate


def result(
    victim: str = "badnet",
    defense: str = "none",
    seed: int = 0,
    hits: int = 80,
    *,
    attack: str = "badnet",
    cacc: int = 90,
    **more: object,
) -> Result:
    trained = "none" if victim == "benign" else victim
    return Result(
        data=str(more.pop("data", "sst2")),
        attack=attack,
        victim=victim,
        defense=defense,
        seed=seed,
        train_attack=str(more.pop("train_attack", trained)),
        cacc=Rate(cacc, 100),
        asr=Rate(hits, 80),
        **more,  # type: ignore[arg-type]
    )


def scaled(shares: tuple[float, float]) -> tuple[float, float]:
    return 100 * shares[0], 100 * shares[1]


def ends(interval: Interval | None) -> tuple[float, float]:
    assert interval is not None
    return interval.low, interval.high


def rows_of(tmp_path: Path, *results: Result) -> list[Row]:
    append_results(tmp_path / "results.jsonl", results)
    return collect([tmp_path])


def test_a_row_is_its_record_flattened(tmp_path: Path) -> None:
    record = replace(
        result(defense="WAG", seed=2, hits=20, cacc=89),
        floor=Rate(8, 80),
        cacc_before=Rate(91, 100),
        asr_before=Rate(79, 80),
        seconds=1.5,
    )
    assert rows_of(tmp_path, record) == [
        Row(
            data="sst2",
            attack="badnet",
            victim="badnet",
            train_attack="badnet",
            defense="WAG",
            seed=2,
            cacc=89.0,
            asr=25.0,
            floor=10.0,
            excess=15.0,
            cacc_n=100,
            cacc_hits=89,
            asr_n=80,
            asr_hits=20,
            floor_n=80,
            floor_hits=8,
            floor_from="own seed",
            floors=(Rate(8, 80),),
            cacc_before=91.0,
            asr_before=98.75,
            seconds=1.5,
            error=None,
            run=str(tmp_path),
        )
    ]


def test_seeds_by_hand(tmp_path: Path) -> None:
    # ASR 10, 20 and 60%: mean 30, deviations -20, -10, +30, variance (400+100+900)/2 = 700.
    hits = {0: 8, 1: 16, 2: 48}
    cacc = {0: 88, 1: 90, 2: 92}
    records = [result(defense="WAG", seed=s, hits=hits[s], cacc=cacc[s]) for s in hits]
    records = [replace(r, seconds=float(r.seed), cacc_before=Rate(91, 100)) for r in records]
    records += [result("benign", seed=s, hits=4 * s) for s in hits]  # floors 0, 5, 10%
    lines = {line.victim: line for line in compare_table(rows_of(tmp_path, *records))}
    line = lines["badnet"]
    assert line.seeds == 3
    assert line.asr == pytest.approx(30)
    assert line.asr_sd == pytest.approx(700**0.5)
    assert (line.cacc, line.cacc_sd) == pytest.approx((90, 2))
    assert line.change == pytest.approx(-1)
    assert line.floor == pytest.approx(5)
    assert line.excess == pytest.approx(25)
    assert line.seconds == pytest.approx(1)
    assert (line.hits, line.n) == (72, 240)
    assert lines["benign"].excess == 0
    # Student's t reaches 4.3027 standard errors with three seeds: 65.7 points, cut at 0.
    assert ends(line.asr_interval) == pytest.approx((0, 30 + 4.30265 * (700 / 3) ** 0.5))
    assert ends(line.cacc_interval) == pytest.approx(t.interval(0.95, 2, 90, 2 / 3**0.5))
    above = [10, 15, 50]  # ASR - floor, seed by seed
    assert ends(line.excess_interval) == pytest.approx(t.interval(0.95, 2, 25, sem(above)))
    assert lines["benign"].excess_interval is None
    assert line.asr_interval.over == line.excess_interval.over == "seeds"


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    (line,) = compare_table(rows_of(tmp_path, result()))
    wilson = binomtest(80, 80).proportion_ci(method="wilson")
    assert line.asr_interval == Interval(*map(pytest.approx, scaled(wilson)), "rows only")
    assert (line.seeds, line.asr, line.asr_sd, line.floor, line.change) == (
        1,
        100,
        None,
        None,
        None,
    )


def test_floor_is_the_benign_models_asr_of_the_same_seed(tmp_path: Path) -> None:
    records = [
        result("benign", seed=0, hits=8),
        result("benign", seed=1, hits=24),
        result("benign", seed=0, hits=40, attack="insertsent"),
        result("benign", seed=0, hits=0, data="olid"),
        result("benign", "WAG", seed=0, hits=1),  # defended: no floor
        *(result(seed=seed) for seed in (0, 1, 7)),
    ]
    floors = {
        row.seed: (row.floor, row.floor_hits, row.floor_n, row.excess, row.floor_from)
        for row in rows_of(tmp_path, *records)
        if row.victim == "badnet"
    }
    assert floors[0] == (10.0, 8, 80, 90.0, "own seed")
    assert floors[1] == (30.0, 24, 80, 70.0, "own seed")
    # No benign model of this seed: the mean of all others', which has no counts.
    assert floors[7] == (20.0, None, None, 80.0, "other seeds")


def test_floor_of_the_record_stands(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, result("benign", hits=8), replace(result(), floor=Rate(4, 80)))
    assert [row.floor for row in rows] == [10.0, 5.0]


def test_floor_of_the_same_run_goes_first(tmp_path: Path) -> None:
    append_results(tmp_path / "a" / "results.jsonl", [result("benign", hits=8), result()])
    append_results(tmp_path / "b" / "results.jsonl", [result("benign", hits=40), result()])
    floors = {row.run: row.floor for row in collect([tmp_path]) if row.victim == "badnet"}
    assert floors == {str(tmp_path / "a"): 10.0, str(tmp_path / "b"): 50.0}


def test_scores_before_are_the_undefended_victims(tmp_path: Path) -> None:
    before, after = rows_of(tmp_path, result(cacc=91), result(defense="WAG", hits=8, cacc=88))
    assert (after.cacc_before, after.asr_before, after.change) == (91.0, 100.0, -3.0)
    assert (before.cacc_before, before.change) == (None, None)


def test_own_attack_by_default(tmp_path: Path) -> None:
    attacks = ("badnet", "insertsent")
    records = [result(v, attack=a) for v in ("benign", "badnet") for a in attacks]
    records += [result("mixed", attack=a, train_attack="mixture") for a in attacks]
    rows = rows_of(tmp_path, *records)
    own = {(row.victim, row.attack) for row in select(rows)}
    assert own == {(row.victim, row.attack) for row in rows} - {("badnet", "insertsent")}
    assert select(rows, attacks="all") == rows


def test_a_benign_model_is_kept_against_every_attack_whatever_else_it_was_measured_on(
    tmp_path: Path,
) -> None:
    """A run without an attack measures it against none, which is its own attack by name."""
    records = [result("benign", attack=a, train_attack="none") for a in ("none", "badnet")]
    rows = rows_of(tmp_path, *records, result("badnet", attack="badnet"))
    assert {(row.victim, row.attack) for row in select(rows)} == {
        ("benign", "none"),
        ("benign", "badnet"),
        ("badnet", "badnet"),
    }


def test_conditions(tmp_path: Path) -> None:
    names = ("WAG", "WAG-all", "TIES")
    rows = rows_of(tmp_path, *(result(defense=d, seed=s) for d in names for s in (0, 1)))

    def chosen(*where: str) -> set[tuple[str, int]]:
        return {(row.defense, row.seed) for row in select(rows, where)}

    assert chosen("defense=wag*") == {(d, s) for d in ("WAG", "WAG-all") for s in (0, 1)}
    assert chosen("defense=WAG", "seed=1") == {("WAG", 1)}
    assert chosen("defense!=WAG*", "seed!=0") == {("TIES", 1)}


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("defence=WAG", "cannot filter by 'defence': did you mean 'defense'?"),
        ("defense=WGA", "no results with defense=WGA: did you mean 'WAG'?"),
        ("defense", "cannot filter by 'defense': write column=value or column!=value"),
    ],
)
def test_bad_conditions(tmp_path: Path, condition: str, message: str) -> None:
    rows = rows_of(tmp_path, result(), result(defense="WAG"))
    with pytest.raises(BdlitError) as caught:
        select(rows, [condition])
    assert str(caught.value) == message


def test_order(tmp_path: Path) -> None:
    rows = rows_of(
        tmp_path,
        result("aardvark", "WAG", hits=5),
        result("aardvark", "TIES", hits=70),
        result("aardvark", "DARE", hits=40, attack="aardvark"),
        result("benign", hits=8),
        replace(result("aardvark", "FAILED"), asr=None, cacc=None, error="no base"),
        result("aardvark"),
    )
    assert [(line.victim, line.defense) for line in compare_table(rows, attacks="all")] == [
        ("benign", "none"),
        ("aardvark", "DARE"),  # against aardvark: attacks go before defenses
        ("aardvark", "none"),
        ("aardvark", "FAILED"),
        ("aardvark", "TIES"),
        ("aardvark", "WAG"),
    ]
    by_asr = [line.defense for line in compare_table(rows, attacks="all", sort="asr")]
    assert by_asr == ["WAG", "none", "DARE", "TIES", "none", "FAILED"]
    by_asr = [line.defense for line in compare_table(rows, attacks="all", sort="-asr")]
    assert by_asr == ["none", "TIES", "DARE", "none", "WAG", "FAILED"]
    by_two = [line.asr for line in compare_table(rows, attacks="all", sort="-defense, -asr")][:3]
    assert by_two == [6.25, 87.5, None]
    with pytest.raises(BdlitError, match=r"cannot sort by 'arr': did you mean 'asr'\?"):
        compare_table(rows, sort="arr")


def test_failures_are_counted_apart(tmp_path: Path) -> None:
    failed = replace(result(defense="WAG", seed=1), asr=None, cacc=None, error="no base")
    (line,) = compare_table(rows_of(tmp_path, result(defense="WAG", hits=40), failed))
    assert (line.seeds, line.asr, line.hits, line.n) == (1, 50, 40, 80)
    assert line.errors == ((1, "no base"),)


def test_no_rows_measured_is_no_number(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, replace(result(), asr=Rate(0, 0)))
    assert (row.asr, row.excess, row.asr_n) == (None, None, 0)
    assert aggregate([row])[0].asr_interval is None
    assert (row.asr_low, row.excess_high) == (None, None)


def test_runs_that_repeat_a_seed_are_not_mixed(tmp_path: Path) -> None:
    append_results(tmp_path / "a" / "results.jsonl", [result(hits=80), result("other")])
    append_results(tmp_path / "b" / "results.jsonl", [result(hits=40), result("other", seed=1)])
    lines = compare_table(collect([tmp_path]), attacks="all")
    told = {(line.victim, Path(line.run).name, line.seeds, line.asr) for line in lines}
    assert told == {("badnet", "a", 1, 100), ("badnet", "b", 1, 50), ("other", "", 2, 100)}


def test_overlapping_paths_count_once(tmp_path: Path) -> None:
    path = tmp_path / "a" / "results.jsonl"
    append_results(path, [result()])
    assert len(collect([tmp_path, tmp_path / "a", path])) == 1


def test_hidden_folders_are_not_searched(tmp_path: Path) -> None:
    append_results(tmp_path / ".cache" / "results.jsonl", [result(seed=1)])
    append_results(tmp_path / "a" / "results.jsonl", [result(seed=0)])
    assert [row.seed for row in collect([tmp_path])] == [0]


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(BdlitError, match=r"no such file or folder: .*nowhere; give the folder"):
        collect([tmp_path / "nowhere"])
    (tmp_path / "results.jsonl").touch()
    with pytest.raises(BdlitError, match=r"no results in .*: neither a results\.jsonl"):
        collect([tmp_path])


def test_filling_twice_changes_nothing(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, result("benign", hits=8), result(), result(defense="WAG", hits=9))
    assert fill_baselines(rows) == rows


def test_every_column_is_a_name_to_sort_by(tmp_path: Path) -> None:
    from bdlit.report.lines import line_columns

    rows = rows_of(tmp_path, result("benign", hits=8), result())
    for column in line_columns():
        assert len(compare_table(rows, sort=f"-{column}")) == 2
