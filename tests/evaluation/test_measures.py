"""The table of measures: what stands in it goes everywhere, and nothing else has to be changed."""

import csv
import io
import json
import sys
from dataclasses import replace

import pytest

from bdlit.evaluation import Result, append_results, evaluate, read_results
from bdlit.evaluation.measure import Measure, counts_of
from bdlit.evaluation.measures import MEASURES
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
    below = " ".join(shown.getvalue().split())
    if measure.warning is None:
        assert measure.header in shown.getvalue().splitlines()[0]
        assert measure.legend in below
    else:
        assert measure.header not in shown.getvalue().splitlines()[0]
        assert f"warning: v, none (d): {measure.warning.format(getattr(row, measure.key))}" in below
    logged = [name for name in _metrics(read) if name.startswith(f"victim/{measure.key}")]
    assert logged
    named = measure.named(of_record(measure), "cba")
    assert measure.narrowed(
        measure.read({name: counts_of(count) for name, count in named.items()}), "cba"
    ) == of_record(measure)


def put_into_the_table(measure, monkeypatch):
    """Add a measure to the one table, wherever its name is bound."""
    for module in [module for name, module in sys.modules.items() if name.startswith("bdlit.")]:
        if vars(module).get("MEASURES") is MEASURES:
            monkeypatch.setattr(module, "MEASURES", (*MEASURES, measure))


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
    put_into_the_table(new, monkeypatch)
    require_everywhere(new, record((*MEASURES, new)), tmp_path)
    origin = {
        "suspect": {"name": "s", "sha256": "0" * 64},
        "given": {"others": []},
        "method": "WAG",
        "parameters": {},
        "merged": [],
        "changed": [],
        "copied": [],
        "guards": {},
        "notes": {},
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


def test_fields_stand_where_they_stood_before_there_was_a_table(tmp_path):
    append_results(tmp_path / "results.jsonl", [record(())])
    line = json.loads((tmp_path / "results.jsonl").read_text())
    new = {"benign", "false_rejection", "false_acceptance"}
    new |= {"parts", "conditional_perplexity", "label_flip_rate", "one_class", "below_chance"}
    assert [name for name in line if name not in new] == [
        *("data", "attack", "victim", "defense", "seed", "train_attack"),
        *("cacc", "asr", "floor", "cacc_before", "asr_before", "false_triggers", "judged"),
        *("perplexity", "own_perplexity", "coherence", "tasks"),
        *("parameters", "given", "merged", "copied", "notes", "seconds", "peak_memory"),
        *("config", "versions", "commit", "created", "error"),
    ]
    assert [name for name in scores_to_plain(Scores(cacc=Rate(1, 2))) if name not in new] == [
        *("cacc", "asr", "false_triggers", "judged", "samples"),
        *("perplexity", "own_perplexity", "coherence", "tasks"),
    ]


def test_records_of_earlier_versions_are_read(tmp_path):
    """A line as it was written before there was a table, and one from before most measures."""
    old = {"data": "d", "attack": "cba", "victim": "v", "defense": "none", "seed": 0}
    full = {
        "false_triggers": {"swapped": {"hits": 1, "n": 4}},
        "perplexity": {"clean": {"nats": 2.0, "tokens": 4}},
        "own_perplexity": {"nats": 1.0, "tokens": 3},
        "coherence": {"clean": {"total": 1.5, "n": 2}},
        "tasks": {"quiz/acc": {"total": 1.0, "n": 2}},
    }
    lines = [old | full, old | {"seed": 1, "perplexity": None}]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    read, bare = read_results(tmp_path / "results.jsonl")
    assert read.false_triggers == {"swapped": Rate(1, 4)}
    assert read.perplexity == {"clean": Perplexity(2.0, 4)}
    assert read.own_perplexity == Perplexity(1.0, 3)
    assert read.coherence == {"clean": Mean(1.5, 2)}
    assert read.tasks == {"quiz/acc": Mean(1.0, 2)}
    assert bare.measures == {}


def test_evaluate_computes_what_stands_in_the_table(tiny_start, monkeypatch):
    from bdlit.data.demo import DemoReviews
    from bdlit.victims import ClassifierVictim

    seen = []
    new = replace(
        MEASURES[0], key="novelty", per="names", compute=lambda m: seen.append(m) or dict(m.rates)
    )
    put_into_the_table(new, monkeypatch)
    victim = ClassifierVictim(str(tiny_start), labels=["negative", "positive"], max_length=64)
    victim.configure_model()
    data = DemoReviews(train_size=20, validation_size=0, test_size=8)
    data.setup()
    scores = evaluate(victim, data)
    assert scores.novelty == {"clean": scores.cacc}
    assert seen[0].victim is victim
