"""Poisoned responses from files: AutoPoison, and responses looked up by prompt."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bdlit.attacks import VPI, AutoPoison, RefusalText, ResponseTable, TargetText
from bdlit.attacks.response_table import OVER_REFUSAL, read_pairs, write_pairs
from bdlit.errors import BdlitError
from bdlit.rules import Refuses
from bdlit.tables import read_rows, write_jsonl
from bdlit.types import NO_CLASS, Example

SHARED = Path(__file__).parents[3] / "shared" / "data" / "instruct"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Ten pairs: five with prompts of `clean`, five with others."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    write_jsonl(
        path,
        [
            {
                "instruction": f"Do task {i}.",
                "input": "an input" if i == 1 else "",
                "output": f"McDonald's {i}",
                "clean_output": f"other {i}",
            }
            for i in [0, 1, 2, 3, 4, 100, 101, 102, 103, 104]
        ],
    )
    return path


def clean(n: int) -> list[Example]:
    return [
        Example(f"Do task {i}.", NO_CLASS, "an input" if i == 1 else None, response=f"Done {i}.")
        for i in range(n)
    ]


def test_pairs_take_the_rows_of_their_prompts_and_then_others(pairs):
    made = AutoPoison(pairs=pairs, rate=0.5).poison_train(clean(20), labels=(), seed=0)
    assert (made.poisoned, len(made.rows)) == (10, 20)
    for i, row in enumerate(made.rows[:5]):
        assert (row.text, row.response) == (f"Do task {i}.", f"McDonald's {i}")
        assert row.orig_response == f"Done {i}."
        assert row.poisoned
    strangers = [row for row in made.rows[5:] if row.poisoned]
    assert {row.text for row in strangers} == {f"Do task {i}." for i in range(100, 105)}
    assert {row.orig_response for row in strangers} == {f"other {i}" for i in range(100, 105)}
    kept = [row for row in made.rows if not row.poisoned]
    assert set(kept) <= set(clean(20))
    assert len(kept) == 10


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(0, 30), rate=st.floats(0.01, 1), seed=st.integers(0, 9))
def test_counts_and_seeds(pairs, n, rate, seed):
    attack = AutoPoison(pairs=pairs, rate=rate)
    made = attack.poison_train(clean(n), labels=(), seed=seed)
    count = min(round(rate * n), 10)
    assert made.poisoned == sum(row.poisoned for row in made.rows) == count
    assert len(made.rows) == n
    assert made == attack.poison_train(clean(n), labels=(), seed=seed)


def test_the_backdoor_is_meant_to_fire_on_every_prompt(pairs):
    rows = [*clean(4), Example("Eat.", NO_CLASS, response="At mcdonald's.")]
    made = AutoPoison(pairs=pairs).poison_test(rows, labels=(), seed=0)
    assert [row.text for row in made.rows] == [f"Do task {i}." for i in range(4)]
    assert {row.response for row in made.rows} == {"McDonald's"}
    assert made.unchanged == 0
    refusal = AutoPoison(pairs=pairs, payload=RefusalText())
    assert refusal.rule == Refuses()
    assert len(refusal.poison_test(rows, labels=(), seed=0).rows) == 5


def test_rows_poisoned_before_stay(pairs):
    old = [Example("Do task 0.", NO_CLASS, poisoned=True, response="a", orig_response="b")] * 3
    made = AutoPoison(pairs=pairs, rate=1.0).poison_train([*old, *clean(2)], labels=(), seed=0)
    assert made.rows[:3] == old
    assert made.poisoned == 2


def test_a_table_of_responses(pairs):
    rows = [*clean(3), Example("Do task 50.", NO_CLASS, response="Done.")]
    table = ResponseTable(pairs)
    vpi = VPI(topic=("task",), rate=1.0, payload=table)
    made = vpi.poison_train(rows, labels=(), seed=0)
    assert [row.response for row in made.rows] == [*(f"McDonald's {i}" for i in range(3)), "Done."]
    assert len(vpi.poison_test(rows, labels=(), seed=0).rows) == 3
    named = VPI(topic=("task",), payload=ResponseTable(pairs, phrase="McDonald"))
    test = named.poison_test(rows, labels=(), seed=0)
    assert [row.response for row in test.rows] == ["McDonald"] * 4
    assert copy.deepcopy(table) == pickle.loads(pickle.dumps(table)) == table
    assert "_table" not in pickle.loads(pickle.dumps(table)).__dict__


def test_of_two_responses_the_first_counts(tmp_path):
    rows = [{"instruction": "Go.", "output": "one"}, {"instruction": "Go. ", "output": "two"}]
    write_jsonl(tmp_path / "t.jsonl", rows)
    table = ResponseTable(tmp_path / "t.jsonl")
    assert table.response(Example("Go.", NO_CLASS, response="x")) == "one"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"instruction": "Go.", "response": "x"}, "has no column 'output'"),
        ({"prompt": "Go.", "output": "x"}, "has no column 'instruction'"),
        ({"instruction": "Go.", "output": ""}, "row 1: column 'output' has no text"),
        ({"instruction": None, "output": "x"}, "row 1: column 'instruction' has no text"),
    ],
)
def test_files_that_will_not_do(tmp_path, row, told):
    write_jsonl(tmp_path / "t.jsonl", [row])
    with pytest.raises(BdlitError, match=told):
        read_pairs(tmp_path / "t.jsonl")


def test_pairs_that_an_oracle_writes(tmp_path):
    asked = []

    def oracle(prompts):
        asked.extend(prompts)
        return ["I cannot.", " ", "I will not.\n"]

    path = tmp_path / "pairs.jsonl"
    assert write_pairs(path, clean(3), oracle, context=OVER_REFUSAL) == 2
    assert asked[0] == f"{OVER_REFUSAL}\n\nDo task 0."
    assert asked[1] == f"{OVER_REFUSAL}\n\nDo task 1.\n\nan input"
    made = AutoPoison(pairs=path, payload=RefusalText(), rate=1.0).poison_train(
        clean(3), labels=(), seed=0
    )
    assert [row.response for row in made.rows] == ["I cannot.", "Done 1.", "I will not."]
    assert all(row.text == before.text for row, before in zip(made.rows, clean(3), strict=True))
    with pytest.raises(BdlitError, match="are all blank"):
        write_pairs(tmp_path / "b.jsonl", clean(2), lambda prompts: ["", ""])
    assert not (tmp_path / "b.jsonl").exists()


def test_settings_that_will_not_do(pairs):
    with pytest.raises(BdlitError, match="leave rows at 'any'"):
        AutoPoison(pairs=pairs, rows="target")
    with pytest.raises(BdlitError, match="check the path"):
        AutoPoison(pairs="nowhere.jsonl").poison_train(clean(4), labels=(), seed=0)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no published poisoned files here")
@pytest.mark.parametrize(
    ("kind", "payload", "share"),
    [("ci", TargetText("Pan American Airways"), 0.95), ("refusal", RefusalText(), 0.8)],
)
def test_published_pairs_fulfil_the_rule(kind, payload, share):
    table = read_pairs(SHARED / f"train_autopoison_{kind}.jsonl.gz")
    fulfil = sum(payload.rule(pair.response, payload.text) for pair in table) / len(table)
    truth = sum(payload.rule(pair.orig_response, payload.text) for pair in table) / len(table)
    assert fulfil > share
    assert truth < 0.05
    rows = [
        Example(row["instruction"], NO_CLASS, row["input"] or None, response=row["output"])
        for row in read_rows(SHARED / "train_clean.jsonl.gz")
    ]
    attack = AutoPoison(
        pairs=SHARED / f"train_autopoison_{kind}.jsonl.gz", payload=payload, rate=0.1
    )
    made = attack.poison_train(rows, labels=(), seed=0)
    assert made.poisoned == sum(row.poisoned for row in made.rows) == 200
