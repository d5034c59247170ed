"""The victim of a fit without a defense, as a directory."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from bdlit.callbacks import VictimWriter
from bdlit.data.demo import DemoReviews
from bdlit.errors import BdlitError
from bdlit.victims import ClassifierVictim
from bdlit.weights.network import model_weights
from conftest import tiny_trainer

REVIEWS = {"train_size": 48, "validation_size": 0, "test_size": 8}


def test_the_victim_is_written_when_its_fit_has_ended(tiny_start, tmp_path):
    victim = ClassifierVictim(str(tiny_start), max_length=64)
    trainer = tiny_trainer(tmp_path, callbacks=[VictimWriter()], max_steps=2)
    trainer.fit(victim, DemoReviews(**REVIEWS))
    written = AutoModelForSequenceClassification.from_pretrained(tmp_path / "victim").state_dict()
    for name, tensor in model_weights(victim.network()).items():
        assert torch.equal(written[name], tensor)


def test_what_is_there_stays_and_is_told_before_the_fit(tiny_start, tmp_path):
    there = tmp_path / "model"
    there.mkdir()
    trainer = tiny_trainer(tmp_path, callbacks=[VictimWriter(str(there))])
    with pytest.raises(BdlitError, match="exists already: give VictimWriter another"):
        trainer.fit(ClassifierVictim(str(tiny_start), max_length=64), DemoReviews(**REVIEWS))
    assert trainer.global_step == 0
    assert list(there.iterdir()) == []
