"""`bdlit fit|validate|test|predict`: LightningCLI as it is, in a folder of its own per run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger

from bdlit.callbacks.predictions import PredictionWriter
from bdlit.cli.errors import one_line_errors, require_configs
from bdlit.cli.recipe_beneath import fit_arguments, may_name_a_recipe
from bdlit.data.base import TextDataModule
from bdlit.evaluation.tracking import go_offline_if_needed
from bdlit.names import offer
from bdlit.training.recipe_record import RECORD, departures_told, recipe_record
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
        """Write `config.yaml` and the record of a recipe, and give the same to every logger."""
        folder = Path(trainer.default_root_dir)
        path = folder / "config.yaml"
        self.parser.save(self.config, path, skip_none=False, overwrite=True)
        settings = yaml.safe_load(path.read_text("utf-8"))
        data = getattr(trainer, "datamodule", None)
        if stage == "fit" and isinstance(pl_module, Victim) and isinstance(data, TextDataModule):
            record = recipe_record(pl_module, trainer, data)
            if record:
                (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", "utf-8")
                print(departures_told(record))
            settings |= record
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.config.update(settings, allow_val_change=True)
            else:
                logger.log_hyperparams({"config": settings})


class RunCLI(LightningCLI):
    """LightningCLI, with a new folder for every run below `trainer.default_root_dir`.

    A recipe by its name (`recipe`) lies beneath the settings of victim, data and trainer.
    """

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the name of a recipe."""
        parser.add_argument(
            "--recipe",
            type=str | None,
            default=None,
            help="Train as a paper does; see `bdlit list recipes`. What is stated here wins.",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line, with a recipe laid beneath it."""
        arguments = sys.argv[1:]
        if may_name_a_recipe(arguments):
            self.config = parser.parse_args(fit_arguments(parser, arguments))
        else:
            super().parse_arguments(parser, args)

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

    def after_instantiate_classes(self) -> None:
        """Tell the victim by which recipe it is trained, for the records."""
        if isinstance(self.model, Victim):
            self.model.recipe = self.config_init[self.subcommand].recipe

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
