"""Floors: whose they are, what filters leave of them, and the interval of what is above them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from report_records import TIES, line_of, result, written
from scipy.stats import ttest_rel

from bdlit.evaluation.intervals import newcombe
from bdlit.report import collect, compare_table
from bdlit.report.compare import compare
from bdlit.report.notes import notes
from bdlit.types import Rate


def test_filters_keep_floors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The benign rows are gone from the table, and were there when floors were filled in."""
    floors = {0: 8, 1: 24, 2: 0}
    benign = [result("none", seed, hits, victim="benign") for seed, hits in floors.items()]
    folder = written(tmp_path, *benign, none=TIES)
    for where in ("victim=badnet", "benign=False", "train_attack!=none"):
        compare([str(folder)], where=where, json=True, lines=True)
        (line,) = json.loads(capsys.readouterr().out)
        assert line["floor_by_seed"] == [10, 30, 0]
        assert line["excess_by_seed"] == [0, -10, 60]
        theirs = ttest_rel([10, 20, 60], [10, 30, 0]).confidence_interval(0.95)
        ends = line["excess_low"], line["excess_high"]
        assert ends == pytest.approx((theirs.low, min(theirs.high, 100)))
        assert line["excess_over"] == "seeds"


def test_victims_that_see_other_attacks_keep_their_floors(tmp_path: Path) -> None:
    """`attacks=own` leaves out other attacks of victims, never those of benign models."""
    benign = [replace(result("none", 0, 8, victim="benign"), attack=a) for a in ("badnet", "vpi")]
    other = replace(result("none", 0, 80), attack="vpi")
    rows = collect([written(tmp_path, *benign, result("none", 0, 40), other)])
    lines = compare_table(rows, where=["victim=badnet"])
    assert [(line.attack, line.floor, line.excess) for line in lines] == [("badnet", 10, 40)]


def test_a_floor_of_other_seeds_adds_what_benign_models_leave_open(tmp_path: Path) -> None:
    benign = [result("none", seed, hits, victim="benign") for seed, hits in ((7, 8), (8, 24))]
    rows = collect([written(tmp_path, *benign, none=TIES)])
    line = line_of(compare_table(rows, where=["victim=badnet"]), "none")
    assert (line.floor, line.excess) == pytest.approx((20, 10))
    assert line.excess_interval.over == "unpaired seeds"
    assert any(text.startswith("~ seeds not paired") for text in notes([line]))
    # The floor is one number for all three seeds: their excesses alone would not show its spread.
    asr = line.asr_interval
    assert line.excess_interval.high - line.excess > asr.high - line.asr
    # Where one seed only has to borrow, pairs are not made of the others alone either.
    mixed = [*benign, result("none", 0, 8, victim="benign")]
    rows = collect([written(tmp_path / "mixed", *mixed, none=TIES)])
    line = line_of(compare_table(rows, where=["victim=badnet"]), "none")
    assert line.by_seed("floor") == pytest.approx([10, 50 / 3, 50 / 3])
    assert line.excess_interval.over == "unpaired seeds"


def test_two_benign_models_of_a_seed_are_no_sample_of_twice_the_rows(tmp_path: Path) -> None:
    benign = [
        replace(result("none", 0, hits, victim="benign"), victim=name)
        for name, hits in (("benign", 8), ("proxy", 24))
    ]
    rows = collect([written(tmp_path, *benign, result("none", 0, 40))])
    (line,) = compare_table(rows, where=["victim=badnet"])
    assert (line.floor, line.excess) == (20, 30)
    expected = newcombe(Rate(40, 80), Rate(8, 80), Rate(24, 80))
    assert (line.excess_interval.low, line.excess_interval.high) == expected
    assert (line.scored[0].excess_low, line.scored[0].floor_n) == (expected[0], None)
