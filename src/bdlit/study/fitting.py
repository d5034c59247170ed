"""One model of a study: trained once, measured once, found again by every later run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock

from bdlit.atomic import whole_file
from bdlit.errors import BdlitError
from bdlit.study.plan import START, Model, Plan

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from bdlit.attacks.base import Attack
    from bdlit.data.base import TextDataModule
    from bdlit.training.dynamics import TrainingSet
    from bdlit.victims.base import Victim


T = TypeVar("T")


class Workshop:
    """Trains and finds the models of a study.

    A model is finished when its `model/` folder stands, which appears whole. Shards that need the
    same model train it once: the first locks it, the others wait for the folder. A fit that was
    interrupted goes on from the end of its last epoch.

    Args:
        plan: The study.
        out: Its folder.
        models_from: Folder of another study, whose finished models are taken by name and seed.

    Raises:
        BdlitError: There are no models in `models_from`.
    """

    def __init__(self, plan: Plan, out: Path, models_from: Path | None = None) -> None:
        self.plan = plan
        self.out = out
        self.models_from = models_from
        if models_from is not None and not (models_from / "models").is_dir():
            raise BdlitError(f"{models_from} is no folder of a study with models: check the path")

    def folder(self, name: str, seed: int) -> Path:
        """Return the folder of a model: here, if the other study has not finished it."""
        below = Path("models", f"{name}-seed{seed}")
        if self.models_from is not None and (self.models_from / below / "model").is_dir():
            return self.models_from / below
        return self.out / below

    def finished(self, name: str, seed: int) -> bool:
        """Whether the model stands already."""
        return (self.folder(name, seed) / "model").is_dir()

    def model(self, name: str, seed: int) -> Path:
        """Return the Hugging Face directory of a model, trained now if nobody has."""
        folder = self.folder(name, seed)
        if not self.finished(name, seed):
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):
                if not self.finished(name, seed):  # another shard may have been quicker
                    self._fit(name, seed, folder)
        return folder / "model"

    def data(self, name: str, seed: int, *, learned: bool = True) -> TextDataModule:
        """Return the data that a model is trained on.

        Args:
            name: The model.
            seed: Its seed.
            learned: Whether attacks that learn a trigger have what they learned.
        """
        model = self.plan.models[name]
        if model.data is not None:
            return _made(model.data, seed=seed, **_attack(model), **model.settings.data)
        return self.tests(name, seed, learned=learned)

    def training_set(self, name: str, seed: int, tests: TextDataModule) -> TrainingSet:
        """Return the rows that a model was trained on, with what was logged of its training.

        Args:
            name: The model.
            seed: Its seed.
            tests: What `tests` gave for it, set up: its training rows are the model's own, unless
                the model has other data.
        """
        from bdlit.training.dynamics import DYNAMICS_FILE, TrainingSet, load_certainty

        data = tests
        if self.plan.models[name].data is not None:
            data = self.data(name, seed)
            data.prepare_data()
            data.setup()
        file = self.folder(name, seed) / DYNAMICS_FILE
        certainty = load_certainty(file, data.train_rows) if file.is_file() else None
        return TrainingSet(data.train_rows, certainty)

    def tests(self, name: str, seed: int, *, learned: bool = True) -> TextDataModule:
        """Return the study's data, on whose test sets a model is measured.

        Every attack of the study is among them. A model of other data, such as a proxy of another
        domain, is measured here as well.

        Args:
            name: The model.
            seed: Its seed.
            learned: Whether attacks that learn a trigger have what they learned with their models;
                before these are trained they have no test rows.
        """
        model = self.plan.models[name]
        own = {} if model.data is not None else {**_attack(model), **model.settings.data}
        attacks = [*_configured(self.plan.data, "test_attacks"), *self.plan.attacks]
        if learned:
            trained = {
                self.plan.models[each].attack.name: self.folder(each, seed) / "model"  # type: ignore[union-attr]
                for each in self.plan.learning
            }
            attacks = [_learned(attack, trained) for attack in attacks]
            if own.get("attack") is not None:
                own["attack"] = _learned(own["attack"], trained)
        unique = list({attack.name: attack for attack in attacks}.values())
        return _made(self.plan.data, seed=seed, test_attacks=unique, **own)

    def victim(self, name: str, seed: int) -> Victim:
        """Return a model as it is before training, on the common start if the study has one."""
        if self.plan.start is None:
            return self._victim(name)
        return self._victim(name, model=str(self.model(START, seed)), config=None)

    def _victim(self, name: str, **settings: Any) -> Victim:
        """Return a victim of the study's making, with the settings of a model of its own."""
        victim = _made(self.plan.victim, **{**self.plan.models[name].settings.victim, **settings})
        victim.recipe = self.plan.recipe_of(name)
        return victim

    def purified(self, name: str, treatment: str, seed: int) -> Path:
        """Return the folder of what a defense has made of a model."""
        return self.out / "defended" / f"{name}-seed{seed}" / treatment

    def trained(self, name: str, seed: int) -> Victim:
        """Return a finished model as a victim."""
        address = str(self.model(name, seed))
        return self._victim(name, model=address, config=None, lora=None)

    def trainer(self, name: str, folder: Path, **options: Any) -> Trainer:
        """Return the trainer of a model, which writes into `folder` only."""
        own = self.plan.models[name].settings.trainer
        return _made(self.plan.trainer, **{**own, "default_root_dir": str(folder), **options})

    def require_settings(self, name: str) -> None:
        """Refuse settings that a model's victim or trainer cannot have, before any training.

        Raises:
            BdlitError: Settings do not fit their class, or a recipe does not fit the victim.
        """
        given = {} if self.plan.start is None else {"model": START, "config": None}
        self._victim(name, **given)
        self.trainer(name, self.out, logger=False, callbacks=[])

    def recipe_record(self, name: str, seed: int) -> dict[str, Any]:
        """Return which recipe a model was trained by, as its fit has recorded it."""
        from bdlit.training.recipe_record import RECORD

        file = self.folder(name, seed) / RECORD
        return dict(json.loads(file.read_text("utf-8"))) if file.is_file() else {}

    def _fit(self, name: str, seed: int, folder: Path) -> None:
        from lightning.pytorch import seed_everything

        from bdlit.callbacks.dynamics import TrainingDynamics
        from bdlit.training.fit import fit, last_epoch_kept
        from bdlit.training.recipe_record import RECORD, recipe_record

        if name == START:
            assert self.plan.start is not None
            victim, data = self.plan.start.victim(), _made(self.plan.start.data, seed=seed)
            make, own = self.plan.start.trainer or self.plan.trainer, {}
        else:
            victim, data = self._fresh(name, seed), self.data(name, seed, learned=False)
            make, own = self.plan.trainer, self.plan.models[name].settings.trainer
        seed_everything(seed, verbose=False)
        checkpoints = folder / "checkpoints"
        watched = name in self.plan.suspect_names and self.plan.uses("suspect_train")
        settings = {
            "default_root_dir": str(folder),
            "logger": self.logger(f"{name}-seed{seed}", "fit", [name, data.train_attack]),
            "callbacks": [
                *_configured(make, "callbacks"),
                *([TrainingDynamics()] if watched else []),
                last_epoch_kept(checkpoints),
            ],
        }
        trainer = _made(make, **{**own, **settings})
        if trainer.world_size > 1:
            raise BdlitError(
                "a study trains on one device per process: set trainer.init_args.devices to 1, and "
                "give each device a part with --shard i/n"
            )
        record = recipe_record(victim, trainer, data)
        for logger in trainer.loggers if record else ():
            logger.log_hyperparams(record)
        fit(trainer, victim, data, checkpoints)
        if record:
            with whole_file(folder / RECORD) as part:
                part.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
        victim.export(folder / "model")
        _close(trainer)

    def _fresh(self, name: str, seed: int) -> Victim:
        """Return the victim that a model begins as: untrained, or another model of the study."""
        tuned = self.plan.models[name].tuned_from
        if tuned is None:
            return self.victim(name, seed)
        start = self.model(tuned, seed) if isinstance(tuned, str) else self.purified(*tuned, seed)
        if not (start / "config.json").is_file():
            raise BdlitError(f"{name} is tuned from {tuned}, which left no model at {start}")
        return self._victim(name, model=str(start), config=None)

    def logger(self, name: str, job_type: str, tags: Sequence[str]) -> Any:
        """Return the W&B logger of one run of the study; the whole study is one group."""
        from bdlit.evaluation.tracking import wandb_logger

        return wandb_logger(name, self.out, group=self.plan.name, job_type=job_type, tags=tags)


def _close(trainer: Trainer) -> None:
    """End the W&B run, so that the next fit in this process begins its own."""
    import wandb

    for logger in trainer.loggers:
        logger.finalize("success")
    wandb.finish()


def _attack(model: Model) -> dict[str, Any]:
    return {"attack": model.attack, "poisoned_train": model.poisoned_train}


def _made(factory: Callable[..., T], **settings: Any) -> T:
    """Call a factory of the config with settings of the study on top.

    Raises:
        BdlitError: It has no such setting, which a model of the study names.
    """
    try:
        return factory(**settings)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise BdlitError(f"`settings` of a model of the study: {error}") from error


def _learned(attack: Attack, trained: Mapping[str, Path]) -> Attack:
    """Return an attack with what it learned, from the model that was trained with it."""
    folder = trained.get(attack.name)
    return attack if folder is None or attack.ready else attack.learned(folder)


def _configured(factory: Any, name: str) -> list[Any]:
    """Return a list that the config gives to a factory."""
    return list(getattr(factory, "keywords", {}).get(name) or [])
