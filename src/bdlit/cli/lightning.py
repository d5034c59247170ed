"""`bdlit fit|validate|test|predict`: LightningCLI as it is, in a folder of its own per run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger

from bdlit.callbacks.predictions import PredictionWriter
from bdlit.cli.errors import one_line_errors, require_configs
from bdlit.data.base import TextDataModule
from bdlit.evaluation.tracking import go_offline_if_needed
from bdlit.names import offer
from bdlit.training.run_folders import new_run_directory
from bdlit.victims.base import Victim

DEFAULT_ROOT = "runs"
"""Folder of all runs, where `trainer.default_root_dir` names none."""


class KeepConfig(SaveConfigCallback):
    """Write the whole config into the run's folder, and log it, not the hyperparameters alone.

    It is kept as the user gave it, without the folder of this run: to run it again makes another.
    """

    def __init__(self, *arguments: Any, given: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.config = given

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write `config.yaml`, and give the same to every logger."""
        path = Path(trainer.default_root_dir) / "config.yaml"
        self.parser.save(self.config, path, skip_none=False, overwrite=True)
        settings = yaml.safe_load(path.read_text("utf-8"))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.config.update(settings, allow_val_change=True)
            else:
                logger.log_hyperparams({"config": settings})


class RunCLI(LightningCLI):
    """LightningCLI, with a new folder for every run below `trainer.default_root_dir`."""

    def before_instantiate_classes(self) -> None:
        """Send everything that the run writes to its own folder."""
        config = self.config[self.subcommand]
        self.save_config_kwargs["given"] = config.clone()
        root = config.trainer.default_root_dir or DEFAULT_ROOT
        folder = new_run_directory(root, str(self.subcommand))
        config.trainer.default_root_dir = str(folder)
        loggers = config.trainer.logger
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            _send_to(logger, folder)

    def before_fit(self) -> None:
        """Say where things go."""
        if self.trainer.is_global_zero:
            print(f"run folder: {self.trainer.default_root_dir}")


def _send_to(logger: Any, folder: Path) -> None:
    settings = getattr(logger, "init_args", None)
    if settings is None:
        return
    if settings.get("save_dir") in (None, "."):
        settings["save_dir"] = str(folder)
    if str(logger.get("class_path", "")).endswith("WandbLogger"):
        go_offline_if_needed()


def run(arguments: list[str]) -> None:
    """Run one of Lightning's subcommands."""
    # LightningCLI reads sys.argv itself; processes for other ranks are started with it as well.
    sys.argv[1:] = arguments
    require_configs(arguments)
    offer()  # `class_path: BadNet` finds what is imported
    quiet = {"exit_on_error": False}
    with one_line_errors():
        RunCLI(
            Victim,
            TextDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            save_config_callback=KeepConfig,
            save_config_kwargs={"save_to_log_dir": False},
            auto_configure_optimizers=False,
            trainer_defaults={"callbacks": [PredictionWriter()]},
            parser_kwargs={**quiet, **{name: quiet for name in LightningCLI.subcommands()}},
        )
