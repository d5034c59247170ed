"""The recipes of docs/extending.md run as they stand, and are as short as it says."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bdlit.callbacks import DefenseCallback
from bdlit.data.demo import DemoReviews
from bdlit.defenses.base import VOCABULARY
from bdlit.defenses.capabilities import capability_table
from bdlit.victims import ClassifierVictim
from bdlit.weights import model_weights, open_weights
from conftest import tiny_trainer

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text("utf-8")
RECIPES = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)


@pytest.fixture(scope="module")
def made():
    """What the recipes define."""
    names = {"__name__": "extending"}
    for recipe in RECIPES:
        exec(recipe, names)
    return names


def test_there_are_five_of_at_most_sixty_lines():
    assert len(RECIPES) == 5
    assert max(len(recipe.splitlines()) for recipe in RECIPES) <= 60


def test_the_page_names_all_that_a_defense_may_be_given():
    named = re.findall(r"`(\w+)`", PAGE[PAGE.index("| `others`") : PAGE.index("Test rows, the")])
    assert set(named) == set(VOCABULARY)


def test_they_run_in_one_fit_and_stand_in_the_table(made, tiny_start, tmp_path):
    names = ("Median", "DropSurest", "Flooded", "KnownWords")
    defenses = [made[name]() for name in names]
    others = [str(tiny_start), str(tiny_start)]
    callback = DefenseCallback(defenses, others=others, benign=str(tiny_start))
    victim = ClassifierVictim(str(tiny_start), max_length=64, learning_rate=3e-3)
    attack = made["Amplified"](rate=0.3, factor=2.0)
    sizes = {"train_size": 96, "validation_size": 0, "test_size": 40, "clean_pool_size": 30}
    data = DemoReviews(**sizes, attack=attack)
    tiny_trainer(tmp_path / "run", callbacks=[callback], max_epochs=2).fit(victim, data)
    found = {result.defense: result for result in callback.results}
    assert set(found) == {"none", *names}
    assert all(result.error is None for result in found.values())
    assert found["DropSurest"].notes["dropped"]["rows"] == round(0.2 * len(data.train_rows))
    assert found["KnownWords"].false_acceptance.n == found["none"].asr.n

    # The median of three, two of them the start, is the start wherever they differ in floats.
    start = open_weights(tiny_start)
    median = open_weights(tmp_path / "run" / "defended" / "Median")
    assert all(torch.equal(median[name], start[name]) for name in start)

    # The edit, by hand: a fit without it, and twice its change of the layers.
    plain = ClassifierVictim(str(tiny_start), max_length=64, learning_rate=3e-3)
    rows = DemoReviews(**sizes, attack=replace(attack, factor=1.0))
    tiny_trainer(tmp_path / "plain", max_epochs=2).fit(plain, rows)
    released = model_weights(victim.network())
    for name, tensor in model_weights(plain.network()).items():
        twice = start[name] + 2 * (tensor - start[name]) if "layer" in name else tensor
        torch.testing.assert_close(released[name], twice)
    rows = {row["name"]: row for row in capability_table()}
    assert rows["DropSurest"]["needs"] == "suspect_train, train, victim"
    assert rows["Flooded"]["paper"] == "arXiv:2110.11571"
