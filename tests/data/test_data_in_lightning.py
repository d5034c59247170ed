"""The data module under a real Trainer, one process on the CPU."""

import warnings

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DistributedSampler

from bdlit.attacks import BadNet
from bdlit.data import TextDataModule
from bdlit.data.loaders import EXPECTED_WARNINGS
from bdlit.types import Example


class Reviews(TextDataModule):
    splits = ("train", "validation", "test")

    def load(self, split):
        if split not in self.splits:
            return []
        return [Example(f"{split} {'so ' * (i % 9)}{i}", i % 2) for i in range(50)]


class Held:
    """Stands for the tensors that a victim makes of a batch; Lightning leaves it as it is."""

    def __init__(self, rows):
        self.rows = rows


class Recorder(LightningModule):
    """Learns nothing that matters, but writes down the batches it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.epochs, self.validated, self.tested = {}, {}, {}

    def on_before_batch_transfer(self, batch, dataloader_idx):
        assert isinstance(batch, list)
        assert all(isinstance(row, Example) for row in batch)
        return Held(batch)

    def training_step(self, batch, index):
        self.epochs.setdefault(self.current_epoch, []).append(batch.rows)
        return (self.weight - len(batch.rows)) ** 2

    def validation_step(self, batch, index, dataloader_idx=0):
        name = list(self.trainer.val_dataloaders)[dataloader_idx]
        self.validated.setdefault(name, []).append(batch.rows)

    def test_step(self, batch, index, dataloader_idx=0):
        name = list(self.trainer.test_dataloaders)[dataloader_idx]
        self.tested.setdefault(name, []).append(batch.rows)

    def predict_step(self, batch, index):
        return [row.text for row in batch.rows]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def trainer(**options):
    return Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def rows(batches):
    return sorted((row for batch in batches for row in batch), key=str)


@pytest.fixture
def reviews():
    return Reviews(
        label_names=["bad", "good"], target="good", attack=BadNet(), batch_size=8, eval_batch_size=7
    )


def test_fit_test_and_predict(reviews):
    model, runner = Recorder(), trainer(max_epochs=2, num_sanity_val_steps=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for message in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message)
        runner.fit(model, datamodule=reviews)
    assert isinstance(runner.train_dataloader.sampler, DistributedSampler)
    for epoch in (0, 1):
        assert rows(model.epochs[epoch]) == sorted(reviews.train_rows, key=str)
        assert [len(batch) for batch in model.epochs[epoch]].count(8) == 6
    assert model.epochs[0] != model.epochs[1], "set_epoch was not called"
    for name in ("clean", "badnet"):
        assert rows(model.validated[name]) == sorted(2 * reviews.val_rows[name], key=str)

    runner.test(model, datamodule=reviews, verbose=False)
    assert {name: rows(batches) for name, batches in model.tested.items()} == {
        name: sorted(each, key=str) for name, each in reviews.test_rows.items()
    }
    predicted = runner.predict(model, datamodule=reviews)
    assert [text for batch in predicted for text in batch] == [
        row.text for row in reviews.test_rows["clean"]
    ]


def test_fit_without_a_validation_split(reviews, recwarn):
    reviews.splits = ("train", "test")
    model = Recorder()
    trainer(max_epochs=1).fit(model, datamodule=reviews)
    assert len(model.epochs[0]) == 7
    assert model.validated == {}
    assert not [str(each.message) for each in recwarn if "val" in str(each.message)]


def test_evaluation_leaves_the_random_numbers_of_training_alone(reviews):
    reviews.setup()
    state = torch.get_rng_state()
    for loader in [*reviews.test_dataloader().values(), reviews.train_dataloader()]:
        list(loader)
    assert torch.equal(torch.get_rng_state(), state)
