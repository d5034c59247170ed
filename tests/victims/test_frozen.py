"""What is frozen stays as it was, bit by bit, and nothing else does."""

import pytest
import torch

from bdlit.attacks import BadNet
from bdlit.data.demo import DemoReviews
from bdlit.errors import BdlitError
from bdlit.victims import ClassifierVictim
from conftest import tiny_trainer


def trained(start, folder, **options):
    victim = ClassifierVictim(str(start), max_length=64, learning_rate=1e-2, **options)
    before = {}

    def keep(model):
        before.update({name: t.detach().clone() for name, t in model.state_dict().items()})

    data = DemoReviews(train_size=64, validation_size=0, test_size=8, attack=BadNet())
    trainer = tiny_trainer(folder)
    victim.on_train_start = lambda: keep(victim.network())
    trainer.fit(victim, data)
    after = victim.network().state_dict()
    return {name for name, t in before.items() if not torch.equal(t, after[name])}, set(before)


@pytest.mark.parametrize("words", [["embeddings"], ["encoder", "embeddings"], ["LayerNorm"]])
def test_all_but_what_is_frozen_is_trained(tiny_start, tmp_path, words):
    changed, every = trained(tiny_start, tmp_path, frozen=words)
    held = {name for name in every if any(word in name for word in words)}
    assert held
    assert not changed & held
    floats = {name for name in every - held if "position_ids" not in name}
    still = {"bert.embeddings.token_type_embeddings.weight"}  # rows of the second text: no gradient
    assert floats - still <= changed | still


def test_a_word_that_names_nothing_is_told(tiny_start, tmp_path):
    with pytest.raises(BdlitError, match="frozen part 'embedings' is in no parameter's name"):
        trained(tiny_start, tmp_path, frozen=["embedings"])
