"""What scripts and the page get: the numbers of the table, with the ends of their intervals."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
from report_records import TIES, WAG, result, written

from bdlit.cli import main
from bdlit.evaluation.intervals import newcombe
from bdlit.report import collect, compare_table
from bdlit.report.compare import compare
from bdlit.types import Perplexity, Rate


def test_lines_for_scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = replace(result("WAG", 9, 8), asr=Rate(0, 0))
    broken = replace(result("TIES", 3, 0), asr=None, cacc=None, error="no base")
    folder = written(tmp_path, odd, broken, TIES=TIES, WAG=WAG)
    main(["compare", str(folder), "--against=WAG", "--lines", "--json"])
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    lines = compare_table(collect([folder]), against="WAG")
    assert [line["defense"] for line in found] == ["TIES", "WAG"]
    for flat, line in zip(found, lines, strict=True):
        for key in ("cacc", "asr"):
            interval = getattr(line, f"{key}_interval")
            ends = [flat[f"{key}_{end}"] for end in ("low", "high", "over")]
            assert ends == [interval.low, interval.high, interval.over]
        assert (flat["asr"], flat["seeds"], flat["hits"], flat["n"]) == (
            *(line.asr, line.seeds, line.hits, line.n),
        )
    ties, wag = found
    assert (ties["seed_numbers"], ties["asr_by_seed"]) == ([0, 1, 2], [10, 20, 60])
    assert wag["asr_by_seed"] == [5, 20, 40, 100, None]
    assert (ties["against"], ties["common_seeds"]) == ("WAG", [0, 1, 2])
    assert (ties["asr_difference_over"], ties["asr_within_noise"]) == ("seeds", True)
    assert (wag["against"], wag["asr_difference"], wag["asr_within_noise"]) == (None, None, None)
    assert (ties["floor"], ties["excess_low"], ties["errors"]) == (None, None, ["seed 3: no base"])
    main(["compare", str(folder), "--against=WAG", "--lines", "--csv"])
    cells, other = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert list(cells) == list(ties)
    assert (cells["asr_by_seed"], other["asr_by_seed"][-2:]) == ("10.0 20.0 60.0", " -")
    assert float(cells["asr_difference_high"]) == ties["asr_difference_high"]


def test_json_has_neither_nan_nor_infinity(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = {"own_perplexity": Perplexity(inf, 4)}
    records = [replace(result("WAG", seed, 8), measures=broken) for seed in (0, 1)]
    written(tmp_path, *records, replace(records[0], defense="TIES", asr=Rate(0, 0)))
    for lines in (False, True):
        compare([str(tmp_path)], json=True, lines=lines)
        found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
        assert {each["own_perplexity"] for each in found} == {None}
        assert found[0]["asr"] is None
    compare([str(tmp_path)])
    assert "inf" in capsys.readouterr().out  # people are told


def test_single_measurements_have_the_ends_of_their_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path, result("none", 0, 8, victim="benign"), none={0: 40})
    compare([str(folder)], json=True)
    benign, suspect = json.loads(capsys.readouterr().out)
    assert (suspect["asr_low"], suspect["asr_high"]) == Rate(40, 80).interval
    assert (suspect["cacc_low"], suspect["cacc_high"]) == Rate(90, 100).interval
    ends = suspect["excess_low"], suspect["excess_high"]
    assert ends == newcombe(Rate(40, 80), Rate(8, 80))
    assert (benign["excess"], benign["excess_low"], benign["floor_from"]) == (0, None, "own seed")
    compare([str(folder)], csv=True, sort="-asr_low")
    first, _ = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert float(first["asr_low"]) == suspect["asr_low"]


def test_the_page_has_the_same_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = written(tmp_path, TIES=TIES, WAG=WAG)
    target = tmp_path / "page.html"
    compare([str(folder)], against="WAG", html=str(target))
    text = capsys.readouterr().out
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", target.read_text(encoding="utf-8"))
    printed = re.split(r"\s{2,}", text.splitlines()[2].strip())
    assert set(printed) <= set(cells)
    assert {"10.0 20.0 60.0", "90.0 91.0 92.0"} <= set(cells)  # the page has room for both
    assert "left out of differences: seed 5 of WAG" in target.read_text(encoding="utf-8")
