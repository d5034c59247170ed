"""Lines held against a defense, paired by seed; and what is said of the numbers below the table."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from report_records import TIES, WAG, line_of, result, written
from scipy.stats import ttest_rel

from bdlit.cli import main
from bdlit.errors import BdlitError
from bdlit.evaluation.intervals import newcombe
from bdlit.report import collect, compare_table
from bdlit.report.compare import compare
from bdlit.report.notes import notes
from bdlit.types import Rate


def test_seeds_are_paired_by_their_number(tmp_path: Path) -> None:
    rows = collect([written(tmp_path, TIES=TIES, WAG=WAG)])
    line = line_of(compare_table(rows, against="WAG"), "TIES")
    assert (line.against.seeds, line.against.own, line.against.other) == ((0, 1, 2), (), (5,))
    # Seeds 0, 1, 2: 10, 20, 60% against 5, 20, 40%.
    theirs = ttest_rel([10, 20, 60], [5, 20, 40]).confidence_interval(0.95)
    found = line.against.asr
    assert (found.interval.low, found.interval.high) == pytest.approx((theirs.low, theirs.high))
    assert found.mean == line.asr_difference == pytest.approx((5 + 0 + 20) / 3)
    assert (found.interval.over, found.within_noise) == ("seeds", True)
    # Their CACCs agree seed by seed: the difference is 0 each time, so it is over rows.
    widest = newcombe(Rate(90, 100), Rate(90, 100))
    assert (line.against.cacc.interval.low, line.against.cacc.interval.high) == widest
    assert line_of(compare_table(rows, against="WAG"), "WAG").against is None


def test_order_of_the_file_does_not_matter(tmp_path: Path) -> None:
    one = collect([written(tmp_path / "a", TIES=TIES, WAG=WAG)])
    turned = {name: dict(reversed(own.items())) for name, own in (("WAG", WAG), ("TIES", TIES))}
    other = collect([written(tmp_path / "b", **turned)])
    first, second = (line_of(compare_table(r, against="WAG"), "TIES") for r in (one, other))
    assert first.against == second.against
    assert first.by_seed("asr") == second.by_seed("asr") == [10, 20, 60]


def test_a_filter_of_defenses_does_not_hide_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = collect([written(tmp_path, result("none", 0, 8, victim="benign"), TIES=TIES, WAG=WAG)])
    whole = line_of(compare_table(rows, against="WAG"), "TIES")
    for where in (["defense=TIES"], ["victim=badnet", "defense!=WAG"]):
        (line,) = compare_table(rows, where=where, against="WAG")
        assert line.against == whole.against
        compare([str(tmp_path)], where=where, against="WAG", json=True, lines=True)
        (flat,) = json.loads(capsys.readouterr().out)
        assert flat["asr_difference"] == whole.asr_difference
    # Other conditions hold for both.
    (line,) = compare_table(rows, where=["defense=TIES", "seed=1"], against="WAG")
    assert (line.against.seeds, line.against.other) == ((1,), ())
    assert line.against.asr.interval.over == "rows only"


def test_runs_that_repeat_a_seed_are_held_against_their_own(tmp_path: Path) -> None:
    written(tmp_path / "a", TIES={0: 8, 1: 16}, WAG={0: 4, 1: 8})
    written(tmp_path / "b", TIES={0: 40, 1: 48})
    lines = compare_table(collect([tmp_path]), against="WAG")
    held = {Path(line.run).name: line.against for line in lines if line.defense == "TIES"}
    assert held["a"].asr.mean == pytest.approx(7.5)
    assert held["b"] is None
    # A defense that was added in a folder of its own is paired with the only other there is.
    written(tmp_path / "c", TIES={0: 8, 1: 16})
    written(tmp_path / "d", WAG={0: 4, 1: 8})
    lines = compare_table(collect([tmp_path / "c", tmp_path / "d"]), against="WAG")
    assert line_of(lines, "TIES").against == held["a"]
    # Two others that are as near: none is taken at random.
    written(tmp_path / "e", WAG={0: 80})
    lines = compare_table(collect([tmp_path / name for name in "cde"]), where=["defense=TIES"])
    assert [line.run for line in lines] == [""]
    lines = compare_table(
        collect([tmp_path / name for name in "cde"]), where=["defense=TIES"], against="WAG"
    )
    assert (lines[0].against.seeds, lines[0].against.unclear) == ((1,), (0,))
    (told,) = [text for text in notes(lines) if text.startswith("left out")]
    assert told.endswith("seed 0 of TIES on badnet (sst2), of which several runs have WAG")


def test_what_only_one_side_has_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = replace(result("WAG", 1, 0), asr=None, cacc=None, error="no base")
    both = {0: 8, 1: 16, 2: 40}
    folder = written(tmp_path, failed, TIES=both, DARE=both, WAG={0: 4, 2: 32, 5: 80})
    compare([str(folder)], against="WAG")
    text = capsys.readouterr().out
    told = [line for line in text.splitlines() if line.startswith("left out")]
    assert told == [
        "left out of differences: seed 1 of DARE, TIES on badnet (sst2), which WAG lacks",
        "left out of differences: seed 5 of WAG on badnet (sst2), which DARE lacks",
        "left out of differences: seed 5 of WAG on badnet (sst2), which TIES lacks",
    ]
    line = line_of(compare_table(collect([folder]), against="WAG"), "TIES")
    assert (line.against.seeds, line.asr_difference) == ((0, 2), pytest.approx(7.5))


def test_no_seed_in_common_is_no_number(tmp_path: Path) -> None:
    folder = written(tmp_path, TIES={0: 8}, WAG={1: 8})
    line = line_of(compare_table(collect([folder]), against="WAG"), "TIES")
    assert (line.against.asr, line.asr_difference) == (None, None)
    assert "left out of differences: seed 0 of TIES on badnet (sst2), which WAG lacks" in notes(
        [line]
    )


def test_the_table_says_what_is_within_noise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hits = {"none": {0: 79, 1: 80, 2: 78}, "TIES": {0: 4, 1: 8, 2: 5}, "WAG": {0: 5, 1: 7, 2: 6}}
    folder = written(tmp_path, **hits)
    main(["compare", str(folder), "--against", "WAG"])
    text = capsys.readouterr().out
    table = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    at = table[0].index("noise")
    assert table[0][at - 4 : at] == ["ΔASR", "95%", "ΔCACC", "95%"]
    assert {line[3]: line[at] for line in table[2:5]} == {
        "none": "CACC",
        "TIES": "both",
        "WAG": "-",
    }
    assert "ΔASR, ΔCACC: difference to WAG, seed by seed." in " ".join(text.split())
    main(["compare", str(folder), "--against", "none", "--sort", "asr_difference"])
    table = [line.split()[3] for line in capsys.readouterr().out.splitlines()[2:5]]
    assert table == [
        "TIES",
        "WAG",
        "none",
    ]  # 17 hits, 18, and the victim itself, held against nothing


@pytest.mark.parametrize("hits", [{0: 8}, {0: 8, 1: 8}])
def test_one_seed_and_seeds_that_agree_are_said_to_be_rows_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], hits: Mapping[int, int]
) -> None:
    compare([str(written(tmp_path, TIES=hits))])
    text = capsys.readouterr().out
    assert "5.2-18.5*" in text
    assert text.count("* rows only: no t interval is possible from one seed") == 1
    compare([str(written(tmp_path, TIES={1: 16, 0: 8}))], where="defense=TIES")
    assert "5.2-18.5*" not in capsys.readouterr().out


def test_seeds_that_differ_in_rows_are_warned_of_once(tmp_path: Path) -> None:
    records = [result("TIES", 0, 8), result("TIES", 1, 80, n=160), result("WAG", 0, 8)]
    lines = compare_table(collect([written(tmp_path, *records)]))
    assert line_of(lines, "TIES").asr == 30  # of 10 and 50%, and not 88 of 240
    (told,) = [text for text in notes(lines) if "different numbers of rows" in text]
    assert told.endswith("ASR of badnet (sst2), TIES (80 to 160 rows)")
    many = [replace(r, victim=f"v{i}") for i in range(5) for r in records[:2]]
    lines = compare_table(collect([written(tmp_path / "many", *many)]), attacks="all")
    (told,) = [text for text in notes(lines) if "different numbers of rows" in text]
    assert told.endswith("and 2 more")


def test_bad_options_are_one_line(tmp_path: Path) -> None:
    folder = str(written(tmp_path, TIES=TIES, **{"WAG-benign": WAG}))
    with pytest.raises(BdlitError) as caught:
        compare([folder], against="WAG-bening")
    assert str(caught.value) == ("nothing to hold against 'WAG-bening': did you mean 'WAG-benign'?")
    with pytest.raises(BdlitError, match=r"--lines says what --json or --csv print"):
        compare([folder], lines=True)
    with pytest.raises(BdlitError, match=r"add --lines"):
        compare([folder], against="TIES", csv=True)
