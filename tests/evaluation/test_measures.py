"""The table of measures: what stands in it goes everywhere, and nothing else has to be changed."""

import csv
import io
import json
import sys
from dataclasses import replace

import pytest

from bdlit.evaluation import Result, append_results, measures, read_results
from bdlit.evaluation.measures import MEASURES, Measure
from bdlit.evaluation.result import scores_of
from bdlit.evaluation.scores import Scores, scores_from_plain, scores_to_plain
from bdlit.evaluation.tracking import _metrics
from bdlit.purification.card import model_card
from bdlit.report import aggregate, collect, print_table, to_csv, to_json
from bdlit.types import Mean, Perplexity, Rate

VALUES = {Rate: Rate(3, 4), Mean: Mean(1.5, 2), Perplexity: Perplexity(2.0, 4)}


def of_record(measure):
    """A value of a measure, as the record of attack `cba` holds it."""
    value = VALUES[measure.kind]
    match measure.per:
        case "model" | "attack":
            return value
        case "names":
            return {"quiz/acc": value}
        case "tests":
            return {"clean": value, "cba": value}
        case "cases":
            return {"swapped": value}


def record(table):
    return Result(
        data="d",
        attack="cba",
        victim="v",
        defense="none",
        seed=0,
        train_attack="cba",
        cacc=Rate(3, 4),
        asr=Rate(1, 4),
        measures={measure.key: of_record(measure) for measure in table},
    )


def require_everywhere(measure, made, folder):
    """A measure is in records, scores, rows, columns, the table and W&B."""
    append_results(folder / "results.jsonl", [made])
    line = json.loads((folder / "results.jsonl").read_text().splitlines()[-1])
    assert line[measure.key] == measure.plain(of_record(measure))
    assert "measures" not in line
    (read,) = read_results(folder / "results.jsonl")
    assert getattr(read, measure.key) == of_record(measure)
    scores = scores_of([read])
    assert scores_from_plain(json.loads(json.dumps(scores_to_plain(scores)))) == scores
    assert measure.narrowed(getattr(scores, measure.key), "cba") == of_record(measure)

    (row,) = collect([folder])
    assert getattr(row, measure.key) == pytest.approx(measure.number(of_record(measure)))
    assert json.loads(to_json([row]))[0][measure.key] == getattr(row, measure.key)
    (cells,) = csv.DictReader(io.StringIO(to_csv([row])))
    assert float(cells[measure.key]) == pytest.approx(getattr(row, measure.key))
    assert (f"{measure.key}_n" in cells) == measure.counted
    shown = io.StringIO()
    print_table(aggregate([row]), file=shown)
    assert measure.header in shown.getvalue().splitlines()[0]
    assert measure.legend in " ".join(shown.getvalue().split())
    logged = [name for name in _metrics(read) if name.startswith(f"victim/{measure.key}")]
    assert logged
    named = measure.named(of_record(measure), "cba")
    assert measure.narrowed(
        measure.read({name: measures.counts_of(count) for name, count in named.items()}), "cba"
    ) == of_record(measure)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.key)
def test_every_measure_goes_everywhere(measure, tmp_path):
    require_everywhere(measure, record(MEASURES), tmp_path)


def test_a_new_measure_needs_no_other_change(tmp_path, monkeypatch):
    new = Measure(
        key="novelty",
        kind=Mean,
        per="model",
        compute=lambda measured: Mean(1.5, 2),
        number=lambda value: value.value,
        header="novel",
        legend="novel: an invented measure.",
        unit="-",
        better="higher",
    )
    table = (*MEASURES, new)
    for module in [module for name, module in sys.modules.items() if name.startswith("bdlit.")]:
        if vars(module).get("MEASURES") is MEASURES:
            monkeypatch.setattr(module, "MEASURES", table)
    require_everywhere(new, record(table), tmp_path)
    origin = {
        "suspect": {"name": "s", "sha256": "0" * 64},
        "given": {"others": []},
        "method": "WAG",
        "parameters": {},
        "merged": [],
        "copied": [],
    }
    scores = Scores(cacc=Rate(3, 4), measures={"novelty": Mean(1.5, 2)})
    assert "| novelty | 0.75 | 0.75 |" in model_card(origin, scores, scores)


def test_what_is_not_measured_is_empty_and_other_names_are_not_attributes():
    scores, result = Scores(cacc=Rate(1, 2)), replace(record(()), measures={})
    assert scores.perplexity == scores.tasks == scores.false_acceptance == {}
    assert scores.own_perplexity is scores.false_rejection is result.false_acceptance is None
    for each in (scores, result):
        with pytest.raises(AttributeError, match="no attribute 'novelty'"):
            _ = each.novelty
