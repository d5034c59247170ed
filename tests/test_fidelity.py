"""The page on fidelity has a row for every method, and names tests that exist."""

import inspect
import re
from pathlib import Path

import pytest

from bdlit import attacks, defenses
from bdlit.attacks import Attack, InstructionAttack, TriggerAttack
from bdlit.defenses.capabilities import capability_table
from bdlit.evaluation.measures import MEASURES

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "fidelity.md").read_text("utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| --")]
FORMS = {Attack, TriggerAttack, InstructionAttack}  # of attacks, and none themselves


def named():
    return set(re.findall(r"^\| `(\w+)`", PAGE, flags=re.M))


def test_every_attack_has_a_row():
    found = {
        name
        for name in attacks.__all__
        if inspect.isclass(cls := getattr(attacks, name))
        and issubclass(cls, Attack)
        and not inspect.isabstract(cls)
        and cls not in FORMS
    }
    assert len(found) > 15
    assert found <= named(), found - named()


def test_every_defense_has_a_row():
    found = {row["name"] for row in capability_table()} & set(defenses.__all__)
    assert len(found) > 10
    assert found <= named(), found - named()


def test_every_measure_has_a_row():
    words = {"false_rejection": "false rejection", "false_acceptance": "acceptance"}
    words |= {"tasks": "general tasks", "own_perplexity": "perplexity"}
    words |= {"label_flip_rate": "label-flip rate", "one_class": "one class"}
    for measure in MEASURES:
        assert words.get(measure.key, measure.key.replace("_", " ")) in PAGE


@pytest.mark.parametrize("row", [row for row in ROWS if "::" in row], ids=lambda row: row[:30])
def test_its_tests_exist_and_its_rows_are_whole(row):
    method, source, compared, verdict, test = (cell.strip() for cell in row.strip("|").split("|"))
    assert all((method, source, compared))
    assert re.match(r"(faithful|declared|ours)", verdict)
    file, _, name = test.strip("`").partition("::")
    assert re.search(rf"^def {name}\(", (TESTS / file).read_text("utf-8"), flags=re.M), test


def test_every_row_names_a_test():
    assert not [row for row in ROWS if "::" not in row and not row.endswith("| test |")]
