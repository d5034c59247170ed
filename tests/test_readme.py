"""The README says what the code says."""

import re
from pathlib import Path

from jsonargparse import ArgumentParser

import bdlit.defenses
from bdlit.defenses.capabilities import capability_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def test_the_capability_table_is_the_generated_one():
    # Other tests define defenses as well; the README shows ours.
    ours = [row for row in capability_table() if row["name"] in bdlit.defenses.__all__]
    assert len(ours) >= 3
    for row in ours:
        assert "| `{name}` | {needs} | {summary} | {paper} |".format(**row) in README


def test_every_file_and_picture_that_it_names_is_there():
    named = re.findall(r"(?:configs|docs)/[\w./-]+\.\w+", README)
    assert named
    for path in named:
        assert (ROOT / path).is_file(), path


def test_its_data_can_be_made():
    from bdlit.data.base import TextDataModule
    from bdlit.names import offer

    offer()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(TextDataModule, "data")
    blocks = re.findall(r"```yaml\n(data:\n.*?)```", README, flags=re.S)
    made = [parser.instantiate_classes(parser.parse_string(block)).data for block in blocks]
    assert [type(data).__name__ for data in made] == [
        "TextDataModule",
        "PromptedClassification",
        "InstructionDataModule",
    ]
    assert made[-1].rule("clean").judge.temperature == 0


def test_its_own_attack_and_defense_work():
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    (attack,) = [block for block in blocks if "class AllCaps" in block]
    (defense,) = [block for block in blocks if "class Halfway" in block]
    import torch

    from bdlit.defenses import Resources, run_defense
    from bdlit.types import Example

    names: dict = {"__name__": "readme"}
    exec(attack, names)
    rows = [Example("good", 1), Example("bad", 0)]
    poisoned = names["AllCaps"](target=0).poison_test(rows, labels=["n", "p"], seed=0)
    assert [row.text for row in poisoned.rows] == ["GOOD"]
    exec(defense, names)
    base = {"w": torch.zeros(2)}
    found = run_defense(names["Halfway"](), {"w": torch.ones(2)}, Resources(base=base))
    assert found.weights["w"].tolist() == [0.5, 0.5]
