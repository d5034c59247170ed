"""Offline W&B runs, really written by wandb and read back."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger

from bdlit.errors import BdlitError
from bdlit.evaluation.result import Result, append_results
from bdlit.evaluation.tracking import log_results, wandb_logger
from bdlit.report import Row, collect
from bdlit.report.collect import RESULTS
from bdlit.report.offline_wandb import read_offline_runs
from bdlit.report.row import measure_columns
from bdlit.types import Mean, Perplexity, Rate

wandb = pytest.importorskip("wandb")

WRITE = """
import wandb

bdlit = {"data": "sst2", "victim": "badnet", "train_attack": "badnet", "seed": 4}
run = wandb.init(mode="offline", dir="bdlit-run", config={"bdlit": bdlit, "lr": 2e-5})
run.log({"val/cacc": 70.0, "val/asr/badnet": 50.0})
run.log({"victim/cacc": 91.0, "victim/asr/badnet": 98.75, "victim/asr/insertsent": 12.5})
run.summary.update({
    "victim/counts/cacc": [91, 100],
    "victim/counts/asr/badnet": [79, 80],
    "victim/counts/asr/insertsent": [10, 80],
    "WAG (all)/cacc": 89.0,
    "WAG (all)/asr/badnet": 25.0,
    "WAG (all)/seconds": 1.25,
    "WAG (all)/counts/cacc": [89, 100],
    "WAG (all)/counts/asr/badnet": [20, 80],
})
run.finish()
run = wandb.init(mode="offline", dir="other-run", config={"lr": 2e-5})
run.log({"victim/cacc": 91.0})
run.finish()
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wandb")
    for name in ("bdlit-run", "other-run"):
        (folder / name).mkdir()
    quiet = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_CONSOLE": "off"}
    # Without the address of the W&B service that tests in this process may have started.
    environment = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    subprocess.run([sys.executable, "-c", WRITE], cwd=folder, env=environment | quiet, check=True)
    return folder


def test_rows_are_the_numbers_that_were_logged(runs: Path) -> None:
    rows = collect([runs])
    (run,) = (runs / "bdlit-run" / "wandb").glob("offline-run-*")
    assert {row.run for row in rows} == {str(run)}
    measured = {(row.attack, row.defense): row for row in rows}
    assert set(measured) == {("badnet", "none"), ("insertsent", "none"), ("badnet", "WAG (all)")}
    assert measured["badnet", "WAG (all)"] == Row(
        data="sst2",
        attack="badnet",
        victim="badnet",
        train_attack="badnet",
        defense="WAG (all)",
        seed=4,
        cacc=89.0,
        asr=25.0,
        cacc_n=100,
        cacc_hits=89,
        asr_n=80,
        asr_hits=20,
        cacc_before=91.0,
        asr_before=98.75,
        seconds=1.25,
        run=str(run),
    )
    assert (measured["insertsent", "none"].asr, measured["badnet", "none"].asr) == (12.5, 98.75)


def test_the_run_folder_itself(runs: Path) -> None:
    (run,) = (runs / "bdlit-run" / "wandb").glob("offline-run-*")
    assert collect([run]) == collect([runs])


def test_results_file_speaks_for_the_runs_below_it(runs: Path) -> None:
    record = Result(
        data="olid", attack="a", victim="v", defense="none", seed=0, cacc=Rate(1, 2), asr=Rate(1, 2)
    )
    file = runs / "bdlit-run" / "results.jsonl"
    append_results(file, [record])
    try:
        assert [row.data for row in collect([runs / "bdlit-run"])] == ["olid"]
    finally:
        file.unlink()


def test_numbers_in_both_are_counted_once(runs: Path, tmp_path: Path) -> None:
    same = Result(
        data="sst2",
        attack="badnet",
        victim="badnet",
        defense="none",
        seed=4,
        train_attack="badnet",
        cacc=Rate(91, 100),
        asr=Rate(79, 80),
    )
    append_results(tmp_path / "results.jsonl", [same])
    rows = collect([tmp_path, runs])
    assert sorted((row.attack, row.defense) for row in rows) == [
        ("badnet", "WAG (all)"),
        ("badnet", "none"),
        ("insertsent", "none"),
    ]


def test_other_programs_runs_hold_no_results(runs: Path) -> None:
    with pytest.raises(BdlitError, match="no results in"):
        collect([runs / "other-run"])


def test_torn_run_is_named_and_left_out(
    runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torn = tmp_path / "wandb" / "offline-run-20260101_000000-torn"
    torn.mkdir(parents=True)
    (torn / "run-torn.wandb").write_bytes(b"no log of W&B")
    assert len(collect([tmp_path, runs])) == 3
    assert "offline-run-20260101_000000-torn" in caplog.text


def test_what_is_logged_of_language_models_is_read_back(tmp_path: Path) -> None:
    cases = {"clean": Rate(1, 9), "one of two": Rate(2, 7)}
    measured = Result(
        data="d",
        attack="cba",
        victim="cba",
        train_attack="cba",
        defense="none",
        seed=3,
        cacc=Rate(5, 9),
        asr=Rate(8, 9),
        measures={
            "false_triggers": cases,
            "perplexity": {"clean": Perplexity(4.5, 3), "cba": Perplexity(2.0, 2)},
            "own_perplexity": Perplexity(float("inf"), 4),
            "coherence": {"clean": Mean(1.5, 2)},
            "tasks": {"piqa/acc": Mean(3.0, 4), "gsm8k/exact_match,strict": Mean(1.0, 2)},
            "false_rejection": Rate(1, 9),
            "false_acceptance": Rate(2, 9),
        },
    )
    unknown = ("false_triggers", "perplexity", "false_acceptance")
    rest = {key: value for key, value in measured.measures.items() if key not in unknown}
    other = replace(measured, attack="vpi", asr=Rate(0, 9), measures=rest)
    purified = replace(
        measured,
        defense="WAG",
        asr=Rate(1, 9),
        measures={**measured.measures, "false_triggers": {"clean": Rate(0, 9)}},
        seconds=0.5,
    )
    logged = [measured, other, purified]
    logger = wandb_logger("run", tmp_path, group="d", job_type="defend", tags=[])
    log_results([logger], logged)
    wandb.finish()
    ((_, found),) = read_offline_runs(list(tmp_path.glob("wandb/offline-run-*")))
    before = {"cacc_before": measured.cacc, "asr_before": measured.asr}
    assert {(r.attack, r.defense): r for r in found} == {
        ("cba", "none"): measured,
        ("vpi", "none"): replace(
            other, measures={**rest, "perplexity": {"clean": measured.perplexity["clean"]}}
        ),
        ("cba", "WAG"): replace(purified, **before),
    }
    append_results(tmp_path / "as-recorded" / RESULTS, logged)
    shown = measure_columns()
    for row in collect([tmp_path / "as-recorded"]):
        (same,) = [r for r in collect([tmp_path / "wandb"]) if r.cell == row.cell]
        if row.attack == "cba":
            assert [getattr(same, name) for name in shown] == [getattr(row, name) for name in shown]


def test_every_logger_gets_the_ends_of_the_rows(tmp_path: Path) -> None:
    """A run is one seed: Wilson's interval, beside names that stay what they were."""
    victim = Result(
        data="d", attack="a", victim="v", defense="none", seed=0, cacc=Rate(9, 10), asr=Rate(0, 0)
    )
    logged = [victim, replace(victim, defense="WAG", asr=Rate(8, 80))]
    plain = CSVLogger(tmp_path)
    tracked = wandb_logger("run", tmp_path, group="d", job_type="defend", tags=[])
    log_results([plain, tracked], logged)
    plain.save()
    wandb.finish()
    (line,) = csv.DictReader((Path(plain.log_dir) / "metrics.csv").open(encoding="utf-8"))
    assert {"victim/cacc", "WAG/cacc", "WAG/asr/a"} <= set(line)
    for prefix in ("victim", "WAG"):
        ends = float(line[f"{prefix}/cacc_low"]), float(line[f"{prefix}/cacc_high"])
        assert ends == Rate(9, 10).interval
    ends = float(line["WAG/asr_low/a"]), float(line["WAG/asr_high/a"])
    assert ends == Rate(8, 80).interval
    assert "victim/asr_low/a" not in line  # measured on no rows
    (file,) = tmp_path.glob("wandb/offline-run-*/files/media/table/defenses_*.table.json")
    table = json.loads(file.read_text(encoding="utf-8"))
    cells = [dict(zip(table["columns"], cells, strict=True)) for cells in table["data"]]
    assert [cell["defense"] for cell in cells] == ["none", "WAG"]
    assert (cells[1]["asr_low"], cells[1]["asr_high"]) == Rate(8, 80).interval
    assert (cells[0]["asr_low"], cells[1]["cacc_high"]) == (None, Rate(9, 10).interval[1])
