"""Defenses after fit: every method starts from the same untouched victim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from bdlit.callbacks.checks import require_whole_model, victim_and_data
from bdlit.callbacks.dynamics import TrainingDynamics
from bdlit.data.base import NO_ATTACK, TextDataModule
from bdlit.defenses.base import Defense, by_name
from bdlit.errors import BdlitError
from bdlit.evaluation.evaluate import evaluate
from bdlit.evaluation.result import UNDEFENDED, Result, append_results
from bdlit.evaluation.tracking import log_results
from bdlit.purification.held import (
    ARCHIVE,
    Job,
    Relative,
    open_relative,
    require_clean_rows,
)
from bdlit.purification.run import Subject, purify, record, record_failure
from bdlit.ranks import place
from bdlit.training.dynamics import TrainingSet
from bdlit.training.run_folders import first_free
from bdlit.types import Rate
from bdlit.victims.base import Victim
from bdlit.weights.network import model_weights


class DefenseCallback(Callback):
    """Run defenses when fit has ended, measure each, save each, and restore the victim.

    The work is done in `on_fit_end`: by then every checkpoint of the victim is written, so that
    no purified weights leak into one. Under DDP all processes merge, and share the measuring.

    The run's folder gets `victim/` and `defended/<defense>/` in Hugging Face form, and
    `results.jsonl`. Note that `trainer.test(ckpt_path="best")` afterwards tests the victim, not a
    purified model.

    Args:
        defenses: Methods to run, each from the same victim.
        others: Addresses of models that merge with the victim: directories, checkpoints, files.
        base: Address of the checkpoint that all of them were fine-tuned from; by default the
            victim's own start.
        benign: Address of a benign model, to measure the floor of ASR; no defense is given it.
        victim_name: Name of the victim in results; by default that of its training attack.
        save: Whether to keep the models on disk.
        directory: Folder of the run; by default the trainer's `default_root_dir`.

    Example:
        >>> from bdlit.defenses import WAG
        >>> callback = DefenseCallback([WAG()], others=["runs/benign/victim"])
    """

    def __init__(
        self,
        defenses: Sequence[Defense],
        *,
        others: Sequence[str] = (),
        base: str | None = None,
        benign: str | None = None,
        victim_name: str | None = None,
        save: bool = True,
        directory: str | None = None,
    ) -> None:
        self.defenses = by_name(defenses)
        self.others = list(others)
        self.base = base
        self.benign = benign
        self.victim_name = victim_name
        self.save = save
        self.directory = directory
        self.results: list[Result] = []
        if any("others" in defense.needs for defense in defenses) and not others:
            names = ", ".join(n for n, d in self.defenses.items() if "others" in d.needs)
            raise BdlitError(
                f"{names} need other models: give DefenseCallback others=[...], "
                "directories of models trained from the same base"
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse models that cannot be merged before hours of training, not after."""
        victim, data = victim_and_data(self, trainer, pl_module)
        require_whole_model(self, trainer)
        require_clean_rows(self.defenses, data)
        with victim.dense():
            others, _, _ = self._open(victim)
            weights = [other.weights for other in others]
            for defense in self.defenses.values():
                defense.check(model_weights(victim.network()), weights, victim)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run, measure, log and save every defense."""
        victim, data = victim_and_data(self, trainer, pl_module)
        device = victim.device
        victim.to(trainer.strategy.root_device)  # the strategy has moved it to the CPU
        try:
            with victim.dense():
                self.results = self._defend(trainer, victim, data)
        finally:
            victim.to(device)

    def _open(self, victim: Victim) -> tuple[list[Relative], Relative | None, Relative | None]:
        others = [open_relative(address, victim) for address in self.others]
        base = open_relative(self.base, victim) if self.base else None
        benign = open_relative(self.benign, victim) if self.benign else None
        return others, base, benign

    def _defend(self, trainer: Trainer, victim: Victim, data: TextDataModule) -> list[Result]:
        others, base, benign = self._open(victim)
        folder = self._folder(trainer) if trainer.is_global_zero else None
        if folder is not None and self.save:  # first: a judge that is down must not cost the fit
            victim.export(folder / "victim")
        before = evaluate(victim, data)
        floor = evaluate(victim, data, benign.weights).asr if benign else {}
        subject = self._subject(victim, data, floor)
        results = record(subject, before)
        _tell(results)
        for name, defense in self.defenses.items():
            job = replace(
                self._job(name, defense, victim, data, others, base),
                suspect_train=_training_set(trainer, data),
                archive=Path(self.directory or trainer.default_root_dir) / ARCHIVE,
            )
            save_to = folder / "defended" / name if folder is not None and self.save else None
            try:
                found = purify(victim, data, job, subject, before=before, save_to=save_to)
            except BdlitError as error:
                # One method that fails must not take the results of the others with it.
                found = record_failure(subject, before, defense=name, error=str(error))
            _tell(found)
            results += found
            _wait_for_all()
        if folder is not None:
            append_results(folder / "results.jsonl", results)
            log_results(trainer.loggers, results)
        return results

    def _job(
        self,
        name: str,
        defense: Defense,
        victim: Victim,
        data: TextDataModule,
        others: list[Relative],
        base: Relative | None,
    ) -> Job:
        if "base" in defense.needs and base is None:
            base = Relative("the victim's start", model_weights(victim.initial_model()))
        return Job(
            name=name,
            defense=defense,
            others=others,
            base=base,
            clean=data.clean_pool,
            victim=victim,
        )

    def _subject(self, victim: Victim, data: TextDataModule, floor: Mapping[str, Rate]) -> Subject:
        return Subject(
            data=data.name,
            victim=self.victim_name or _victim_name(data),
            train_attack=data.train_attack,
            seed=data.seed,
            config={"victim": _plain(dict(victim.hparams)), "poisoning": data.poisoning},
            floor=floor,
        )

    def _folder(self, trainer: Trainer) -> Path:
        wanted = Path(self.directory or trainer.default_root_dir)
        taken = (wanted / "results.jsonl").exists() or (wanted / "victim").exists()
        return first_free(wanted / "run") if taken else wanted


def _training_set(trainer: Trainer, data: TextDataModule) -> TrainingSet:
    """Return what the victim was trained on, with the dynamics if a callback has logged them."""
    callbacks: list[Callback] = getattr(trainer, "callbacks", [])
    logged = (c.certainty for c in callbacks if isinstance(c, TrainingDynamics))
    return TrainingSet(data.train_rows, next(logged, None))


def _victim_name(data: TextDataModule) -> str:
    return "benign" if data.train_attack == NO_ATTACK else data.train_attack


def _tell(results: list[Result]) -> None:
    first = results[0]
    name = "victim" if first.defense == UNDEFENDED else first.defense
    if first.error:
        rank_zero_info(f"{name}: failed: {first.error}")
        return
    asr = "  ".join(
        f"{r.attack} {r.asr.percent:.1f} ({r.asr.hits}/{r.asr.n})" for r in results if r.asr
    )
    cacc = first.cacc.percent if first.cacc else float("nan")
    rank_zero_info(f"{name:>14}: CACC {cacc:5.1f} | ASR {asr}")


def _wait_for_all() -> None:
    if place()[1] > 1:
        torch.distributed.barrier()


def _plain(value: Any) -> Any:
    """Turn settings into what JSON holds."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items() if key != "_instantiator"}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)
