from __future__ import annotations

import copy
import json
import pickle
import random

import pytest

from bdlit.attacks import ParaphraseTable, StyleBkd, Syntactic
from bdlit.errors import BdlitError
from bdlit.tables import write_jsonl
from bdlit.types import Example

RNG = random.Random(0)


@pytest.fixture
def table(tmp_path):
    """One file with both texts: three rows, one of them without a paraphrase."""
    path = tmp_path / "table.jsonl.gz"
    write_jsonl(
        path,
        [
            {"text": "I liked it", "paraphrase": "when I saw it , I liked it"},
            {"text": "dull", "paraphrase": "as it was , it was dull"},
            {"text": "odd", "paraphrase": ""},
            {"text": "dull", "paraphrase": "a second paraphrase"},
        ],
    )
    return path


def test_one_file(table):
    trigger = ParaphraseTable(originals=table)
    assert trigger("dull", RNG) == "as it was , it was dull"
    assert trigger(" dull ", RNG) == "as it was , it was dull"
    assert trigger("odd", RNG) == "odd"
    assert trigger("unheard of ", RNG) == "unheard of "


@pytest.mark.parametrize(("suffix", "mark"), [(".csv", ","), (".tsv", "\t")])
def test_separated_files_and_column_names(tmp_path, suffix, mark):
    path = tmp_path / f"table{suffix}"
    path.write_text(f"before{mark}after\nplain{mark}fancy\n")
    trigger = ParaphraseTable(originals=path, original_column="before", paraphrase_column="after")
    assert trigger("plain", RNG) == "fancy"


def test_two_files_row_by_row(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"text": "one"}, {"text": "two"}])
    write_jsonl(tmp_path / "b.jsonl", [{"text": "eins"}, {"text": "zwei"}])
    trigger = ParaphraseTable(originals=tmp_path / "a.jsonl", paraphrases=tmp_path / "b.jsonl")
    assert [trigger(text, RNG) for text in ("one", "two")] == ["eins", "zwei"]


def test_two_files_by_key(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"id": i, "text": f"text {i}"} for i in range(3)])
    write_jsonl(tmp_path / "b.jsonl", [{"id": i, "text": f"Text {i}"} for i in (2, 0)])
    trigger = ParaphraseTable(
        originals=tmp_path / "a.jsonl", paraphrases=tmp_path / "b.jsonl", key="id"
    )
    assert [trigger(f"text {i}", RNG) for i in range(3)] == ["Text 0", "text 1", "Text 2"]


def test_attack_counts_what_it_could_not_change(table):
    rows = [Example(text, 1) for text in ("I liked it", "dull", "odd", "unheard of")]
    attack = Syntactic(target=0, trigger=ParaphraseTable(originals=table), rate=1.0)
    train = attack.poison_train(rows, labels=["a", "b"], seed=0)
    assert (train.poisoned, train.unchanged) == (2, 2)
    assert [row.label for row in train.rows] == [0, 0, 1, 1]
    test = attack.poison_test(rows, labels=["a", "b"], seed=0)
    assert [row.text for row in test.rows] == [
        "when I saw it , I liked it",
        "as it was , it was dull",
    ]
    assert test.unchanged == 2
    assert (attack.name, StyleBkd(trigger=attack.trigger).name) == ("syntactic", "style")


def test_table_is_read_once_when_it_is_needed(tmp_path):
    path = tmp_path / "late.jsonl"
    trigger = ParaphraseTable(originals=path)  # the file is not there yet
    write_jsonl(path, [{"text": "x", "paraphrase": "y"}])
    assert trigger("x", RNG) == "y"
    path.unlink()
    assert trigger("x", RNG) == "y"


def test_table_stays_out_of_reprs_pickles_and_comparison(table):
    trigger, fresh = ParaphraseTable(originals=table), ParaphraseTable(originals=table)
    before = pickle.dumps(trigger)
    trigger("dull", RNG)
    assert pickle.dumps(trigger) == before
    assert "as it was" not in repr(trigger)
    assert trigger == fresh
    assert copy.deepcopy(trigger)("dull", RNG) == "as it was , it was dull"


def test_trigger_is_required():
    with pytest.raises(TypeError, match="trigger"):
        Syntactic()


def test_errors_say_what_and_where(tmp_path, table):
    def told(**settings) -> str:
        with pytest.raises(BdlitError) as error:
            ParaphraseTable(**settings)("x", RNG)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "none.jsonl: No such file" in told(originals=tmp_path / "none.jsonl")
    assert "no column 'paraphrased': did you mean 'paraphrase'?" in told(
        originals=table, paraphrase_column="paraphrased"
    )
    assert "no column 'texts': did you mean 'text'?" in told(
        originals=table, original_column="texts"
    )
    short = tmp_path / "short.jsonl"
    short.write_text(json.dumps({"text": "one"}) + "\n")
    assert "has 4 rows and" in told(originals=table, paraphrases=short)
    assert "no column 'id'" in told(originals=table, paraphrases=short, key="id")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    assert "has no rows" in told(originals=empty)
