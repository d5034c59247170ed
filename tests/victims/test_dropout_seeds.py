"""Dropout is drawn from (seed, epoch, process): no two of them share it, and a resumed epoch has it
again."""

from itertools import product
from types import SimpleNamespace

import pytest
import torch

from bdlit.victims import ClassifierVictim


@pytest.fixture
def drawn(monkeypatch):
    """What dropout would drop first, in an epoch of a process of a run."""
    victim = ClassifierVictim(config={"model_type": "bert"})

    def draw(seed, epoch, process):
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
        victim.trainer = SimpleNamespace(
            current_epoch=epoch, global_rank=process, strategy=None, _accelerator_connector=None
        )
        torch.manual_seed(99)
        victim.on_train_epoch_start()
        return tuple(torch.rand(4).tolist())

    return draw


def test_every_epoch_of_every_process_of_every_run_has_its_own(drawn):
    places = list(product((0, 1, 2), (0, 1, 7), (0, 1, 3)))
    assert len({drawn(*place) for place in places}) == len(places)


def test_an_epoch_that_is_begun_again_has_the_same(drawn):
    assert drawn(3, 2, 1) == drawn(3, 2, 1)


def test_without_a_seed_the_random_state_stays(drawn, monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    victim = ClassifierVictim(config={"model_type": "bert"})
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    victim.on_train_epoch_start()
    assert torch.rand(4).equal(expected)
