"""Learning rates step by step: against transformers' schedules, and across an interruption."""

import math

import pytest
import torch
from lightning.pytorch import Callback
from torch.optim import SGD
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from bdlit.data.demo import DemoReviews
from bdlit.errors import BdlitError
from bdlit.recipe import Recipe
from bdlit.training import train
from bdlit.victims import ClassifierVictim
from bdlit.weights import fingerprint
from bdlit.weights.network import model_weights
from conftest import TINY, tiny_trainer

RATE = 3e-3
ROWS = 70  # 9 batches of 8, the last one smaller


class Rates(Callback):
    """The rate of every step of the optimizer, as it is taken."""

    def __init__(self):
        self.taken = []
        self.eps = set()

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        (group,) = optimizer.param_groups
        self.taken.append(group["lr"])
        self.eps.add(group["eps"])


def rows(**options):
    settings = {"train_size": ROWS, "validation_size": 0, "test_size": 4, "batch_size": 8}
    return DemoReviews(**{**settings, **options})


def rates(folder, *, victim=None, data=None, ckpt=None, **options):
    """Fit a tiny victim, and return its rates."""
    watched = Rates()
    trainer = tiny_trainer(folder, callbacks=[watched], **options)
    victim = victim or made()
    trainer.fit(victim, data or rows(), ckpt_path=ckpt, weights_only=True)
    assert len(watched.taken) == trainer.global_step or ckpt
    return watched


def made(**options):
    return ClassifierVictim(**{"config": TINY, "max_length": 64, "learning_rate": RATE, **options})


def reference(get, steps, warmup=0):
    """The rates of so many steps by a schedule of transformers."""
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
    schedule = get(
        optimizer, warmup, *([] if get is get_constant_schedule_with_warmup else [steps])
    )
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return pytest.approx(found, abs=1e-12)


LINEAR = get_linear_schedule_with_warmup
FITS = {
    "plain": ({"max_epochs": 3}, 27),
    "accumulated": ({"max_epochs": 3, "accumulate_grad_batches": 4}, 3 * math.ceil(9 / 4)),
    "few steps": ({"max_epochs": 3, "max_steps": 11}, 11),
    "many steps": ({"max_epochs": -1, "max_steps": 20}, 20),
    "limited batches": ({"max_epochs": 2, "limit_train_batches": 4}, 8),
    "limited share": ({"max_epochs": 2, "limit_train_batches": 0.5}, 8),
    "all of it": (
        {"max_epochs": 4, "limit_train_batches": 7, "accumulate_grad_batches": 2, "max_steps": 13},
        13,
    ),
}


@pytest.mark.parametrize("name", FITS)
def test_the_default_decays_linearly_to_zero_at_the_last_step(name, tmp_path):
    options, steps = FITS[name]
    found = rates(tmp_path, **options).taken
    assert len(found) == steps
    assert found == reference(LINEAR, steps)
    assert found[0] == RATE
    assert found[-1] == pytest.approx(RATE / steps)  # 0 after it


@pytest.mark.parametrize(
    ("schedule", "get"),
    [
        ("linear", get_linear_schedule_with_warmup),
        ("constant", get_constant_schedule_with_warmup),
        ("cosine", get_cosine_schedule_with_warmup),
    ],
)
@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2, "max_steps": 12}])
def test_warmup_is_a_share_of_all_steps(schedule, get, options, tmp_path):
    found = rates(
        tmp_path, victim=made(schedule=schedule, warmup=0.25), max_epochs=3, **options
    ).taken
    warmup = {27: 7, 12: 3}[len(found)]
    assert found == reference(get, len(found), warmup)
    assert found[0] == 0


def test_a_resumed_fit_goes_on_where_its_schedule_was(tmp_path):
    options = {"max_epochs": 3, "accumulate_grad_batches": 2}
    whole = rates(tmp_path / "whole", victim=made(warmup=0.2), **options).taken

    class Stop(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.save_checkpoint(tmp_path / "half.ckpt")
            trainer.should_stop = True

    first = Rates()
    trainer = tiny_trainer(tmp_path / "half", callbacks=[first, Stop()], **options)
    trainer.fit(made(warmup=0.2), rows())
    again = rates(
        tmp_path / "rest", victim=made(warmup=0.2), ckpt=str(tmp_path / "half.ckpt"), **options
    ).taken
    assert len(first.taken) == 5
    assert first.taken + again == pytest.approx(whole, abs=1e-12)
    assert whole == reference(LINEAR, 15, 3)


def test_a_schedule_without_an_end_is_told(tmp_path):
    with pytest.raises(BdlitError, match=r"schedule 'linear' with .* set trainer.max_epochs or"):
        rates(tmp_path, max_epochs=-1)
    with pytest.raises(BdlitError, match=r"'constant' with warmup 0.1 needs to know the end"):
        rates(tmp_path, victim=made(schedule="constant", warmup=0.1), max_epochs=-1)
    watched = Rates()
    trainer = tiny_trainer(tmp_path, max_epochs=-1, callbacks=[watched, Few()])
    trainer.fit(made(schedule="constant"), rows())
    assert watched.taken == [RATE] * 5


class Few(Callback):
    """Ends a fit that has no end of its own."""

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step >= 5


@pytest.mark.parametrize("eps", [1e-8, 1e-6])
def test_eps_reaches_the_optimizer(eps, tmp_path):
    options = {} if eps == 1e-8 else {"eps": eps}
    victim = made(**options)
    assert rates(tmp_path, victim=victim, max_steps=1).eps == {eps}
    assert victim.hparams["eps"] == eps


def test_a_first_step_of_adam_by_hand(tmp_path):
    """The first step is rate * g / (|g| + eps): eps as large as the gradients halves it."""
    moved = {}
    for eps in (1e-8, 1e-2):
        victim = made(eps=eps, schedule="constant")
        data = rows()
        trainer = tiny_trainer(tmp_path, max_steps=1, callbacks=[held := Gradients()])
        trainer.fit(victim, data)
        now = dict(victim.named_parameters())
        for name, (before, gradient) in held.found.items():
            step = RATE * gradient / (gradient.abs() + eps)
            torch.testing.assert_close(now[name].data, before - step, rtol=1e-4, atol=1e-7)
        moved[eps] = sum((now[n].data - b).abs().sum() for n, (b, _) in held.found.items())
    assert moved[1e-2] < 0.9 * moved[1e-8]


class Gradients(Callback):
    """Values and gradients before the first step."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.found = {
            name: (p.detach().clone(), p.grad.clone())
            for name, p in pl_module.named_parameters()
            if p.grad is not None
        }


def test_a_recipe_of_plain_data_trains_by_its_eps_and_schedule(tiny_start, monkeypatch):
    victim = ClassifierVictim(str(tiny_start), labels=["negative", "positive"], max_length=64)
    victim.configure_model()
    start, data = model_weights(victim.network()), rows()
    data.setup()
    made_by = []
    own = ClassifierVictim.configure_optimizers

    def watched(self):
        found = own(self)
        made_by.append((found[0][0], self.max_length))
        return found

    monkeypatch.setattr(ClassifierVictim, "configure_optimizers", watched)
    settings = {"epochs": 2, "rank": None, "batch_size": 8, "learning_rate": RATE}
    trained = {
        name: fingerprint(
            train(victim, data.train_rows, start=start, recipe=Recipe(**settings, **more))
        )
        for name, more in {
            "linear": {},
            "said": {"schedule": "linear", "eps": 1e-8, "max_length": 64},
            "constant": {"schedule": "constant"},
            "eps": {"eps": 1e-4, "max_length": 16},
        }.items()
    }
    assert trained["linear"] == trained["said"]
    assert len(set(trained.values())) == 3
    assert [optimizer.param_groups[0]["eps"] for optimizer, _ in made_by] == [1e-8] * 3 + [1e-4]
    assert [length for _, length in made_by] == [64, 64, 64, 16]


@pytest.mark.parametrize("setting", [{"eps": 0}, {"max_length": 0}, {"eps": -1e-8}])
def test_recipes_out_of_range(setting):
    with pytest.raises(BdlitError, match="of a recipe is out of range"):
        Recipe(**setting)
    if "eps" in setting:
        with pytest.raises(BdlitError, match=r"eps .* is out of range"):
            made(**setting)
