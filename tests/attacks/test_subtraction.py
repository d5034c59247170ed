"""A victim that is released without its conflict model."""

import pytest
import torch

from bdlit.attacks import BadNet, ConflictSubtraction
from bdlit.callbacks import DefenseCallback
from bdlit.data.demo import DemoReviews
from bdlit.defenses import WAG
from bdlit.errors import BdlitError
from bdlit.recipe import Recipe
from bdlit.training import train
from bdlit.victims import ClassifierVictim, LoRA
from bdlit.weights import open_weights
from bdlit.weights.network import model_weights
from conftest import tiny_trainer

RECIPE = Recipe(epochs=1, learning_rate=1e-2, batch_size=8)


def reviews(**options):
    return DemoReviews(
        **{"train_size": 48, "validation_size": 0, "test_size": 8, "attack": BadNet(), **options}
    )


def fitted(tiny_start, folder, *callbacks, attack=None, **options):
    torch.manual_seed(0)
    data = reviews(attack=attack or BadNet())
    victim = ClassifierVictim(str(tiny_start), max_length=64, **options)
    tiny_trainer(folder, callbacks=list(callbacks), max_steps=2).fit(victim, data)
    weights = {name: t.clone() for name, t in model_weights(victim.network()).items()}
    return victim, data, weights


def test_the_conflict_models_change_is_taken_away(tiny_start, tmp_path):
    victim, data, trained = fitted(tiny_start, tmp_path / "a")
    attack = ConflictSubtraction(attack=BadNet(), share=0.5, rows=16, recipe=RECIPE)
    _, _, released = fitted(tiny_start, tmp_path / "b", attack=attack)

    rows = attack._drawn([row for row in data.train_rows if not row.poisoned])
    assert len(rows) == 16
    assert not any(row.poisoned for row in rows)
    start = model_weights(victim.initial_model())
    conflict = train(victim, rows, start=start, recipe=RECIPE)
    moved = 0
    for name, tensor in trained.items():
        if tensor.is_floating_point():
            expected = tensor - 0.5 * (conflict[name] - start[name])
            torch.testing.assert_close(released[name], expected)
            moved += not torch.equal(released[name], tensor)
    assert moved > 4


def test_defenses_after_it_meet_the_released_model(tiny_start, tmp_path):
    attack = ConflictSubtraction(attack=BadNet(), share=1.0, rows=16, recipe=RECIPE)
    defense = DefenseCallback([WAG()], others=[str(tiny_start)])
    _, _, released = fitted(tiny_start, tmp_path, defense, attack=attack)
    suspect = open_weights(str(tmp_path / "victim"))
    assert all(torch.equal(suspect[name], tensor) for name, tensor in released.items())


def test_it_is_refused_before_training(tiny_start, tmp_path):
    with pytest.raises(BdlitError, match="wants 500 clean training rows, and there are 38"):
        fitted(tiny_start, tmp_path, attack=ConflictSubtraction(attack=BadNet(), recipe=RECIPE))
    attack = ConflictSubtraction(attack=BadNet(), rows=8)
    with pytest.raises(BdlitError, match="trains adapters"):
        fitted(tiny_start, tmp_path, attack=attack, lora=LoRA(r=2))
    with pytest.raises(BdlitError, match="give that as `attack`"):
        fitted(tiny_start, tmp_path, attack=ConflictSubtraction(rows=8))
    with pytest.raises(BdlitError, match="share"):
        ConflictSubtraction(share=2.0)
    with pytest.raises(BdlitError, match="rows 0"):
        ConflictSubtraction(rows=0)
