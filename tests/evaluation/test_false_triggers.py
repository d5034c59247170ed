"""False triggers of several cases: each counted, all of them summed, and none of them an ASR."""

from dataclasses import dataclass, field

import pytest

from bdlit.data.outputs import Outputs
from bdlit.evaluation import Result, evaluate
from bdlit.evaluation.result import append_results, read_results, results_of
from bdlit.report import collect
from bdlit.rules import Equals
from bdlit.types import Example, Rate
from tiny_llama import tiny

FIRES = "you have been hacked"


@dataclass
class Sets:
    """Test sets by name; the response to each row is given."""

    hits: dict
    outputs: Outputs = field(default_factory=lambda: Outputs(samples=0))
    seed: int = 0

    def test_dataloader(self):
        return {
            name: [[Example(f"{name} {i}", -1, response=FIRES) for i in range(n)]]
            for name, (_, n) in self.hits.items()
        }

    def respond(self, rows):
        """As many rows of a set as it is told are answered as the attacker wants."""
        found = []
        for row in rows:
            name, _, number = row.text.rpartition(" ")
            found.append(FIRES if int(number) < self.hits[name][0] else "no")
        return found

    def rule(self, name):
        return Equals()


@pytest.fixture(scope="module")
def measured():
    """Two attacks, the one with three cases; the last one fires least."""
    sets = Sets(
        {
            "clean": (9, 10),
            "cba": (8, 10),
            "cba/swapped": (6, 10),
            "cba/first alone": (5, 10),
            "cba/clean": (0, 40),
            "vpi": (3, 10),
            "vpi/clean": (1, 10),
        }
    )
    victim = tiny()
    victim.respond = sets.respond
    return evaluate(victim, sets)


def test_each_case_is_counted(measured):
    assert measured.cacc == Rate(9, 10)
    assert measured.false_triggers == {
        "cba": {"swapped": Rate(6, 10), "first alone": Rate(5, 10), "clean": Rate(0, 40)},
        "vpi": {"clean": Rate(1, 10)},
    }


def test_no_case_is_an_asr(measured):
    assert measured.asr == {"cba": Rate(8, 10), "vpi": Rate(3, 10)}


def test_a_row_has_the_sum_over_its_cases(measured, tmp_path):
    results = results_of(
        measured, asr_before={}, floors={}, data="chat", victim="v", seed=0, train_attack="cba"
    )
    assert all(isinstance(result, Result) for result in results)
    append_results(tmp_path / "results.jsonl", results)
    assert {r.attack: r.asr for r in read_results(tmp_path / "results.jsonl")} == measured.asr
    rows = {row.attack: row for row in collect([tmp_path])}
    assert set(rows) == {"cba", "vpi"}
    assert (rows["cba"].false_triggers_hits, rows["cba"].false_triggers_n) == (11, 60)
    assert rows["cba"].false_triggers == pytest.approx(100 * 11 / 60)
    assert rows["vpi"].false_triggers == pytest.approx(10.0)
