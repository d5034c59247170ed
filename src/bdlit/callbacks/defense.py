"""Defenses after fit: every method starts from the same untouched victim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from bdlit.callbacks.checks import require_whole_model, victim_and_data
from bdlit.callbacks.dynamics import TrainingDynamics
from bdlit.data.base import TextDataModule
from bdlit.data.false_triggers import NO_ATTACK
from bdlit.defenses.base import VOCABULARY, Defense, by_name, require_resources
from bdlit.evaluation.evaluate import evaluate
from bdlit.evaluation.result import UNDEFENDED, Result
from bdlit.evaluation.tracking import log_results
from bdlit.purification.compatibility import Matching, fitted, open_base, open_others
from bdlit.purification.held import ARCHIVE, Held, HeldModel
from bdlit.purification.hold import Supplies
from bdlit.purification.measure import described
from bdlit.purification.record import Records, Subject
from bdlit.purification.series import Series, require_no_failure, told
from bdlit.purification.suspect import LiveSuspect, Suspect
from bdlit.training.dynamics import TrainingSet
from bdlit.training.fit import recipe_of
from bdlit.training.recipe_record import recipe_record
from bdlit.training.run_folders import first_free
from bdlit.types import Rate
from bdlit.victims.base import Victim
from bdlit.weights import fingerprint, open_weights
from bdlit.weights.network import model_weights

if TYPE_CHECKING:
    from collections.abc import Iterator


class DefenseCallback(Callback):
    """Run defenses when fit has ended, measure each, save each, and restore the victim.

    The work is done in `on_fit_end`: by then every checkpoint of the victim is written, so that
    no purified weights leak into one. Under DDP all processes merge, and share the measuring.

    The run's folder gets `victim/` and `defended/<defense>/` in Hugging Face form, and
    `results.jsonl`. A fit that is resumed in its folder goes on with the defenses that are not
    finished. A defense that fails is recorded with its error; the others are run, and the fit then
    ends with that error. Note that `trainer.test(ckpt_path="best")` afterwards tests the victim,
    not a purified model.

    Args:
        defenses: Methods to run, each from the same victim.
        others: Addresses of models that merge with the victim: directories, checkpoints, files.
        base: Address of the checkpoint that all of them were fine-tuned from; by default the
            victim's own start.
        benign: Address of a benign model, to measure the floor of ASR; no defense is given it.
        supplies: What else is given, such as plain texts.
        matching: What is done about models whose classes or tensors do not match the victim's.
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
        supplies: Supplies | None = None,
        matching: Matching | None = None,
        victim_name: str | None = None,
        save: bool = True,
        directory: str | None = None,
    ) -> None:
        self.defenses = by_name(defenses)
        self.others = list(others)
        self.base = base
        self.benign = benign
        self.supplies = supplies or Supplies()
        self.matching = matching or Matching()
        self.victim_name = victim_name
        self.save = save
        self.directory = directory
        self.results: list[Result] = []
        for defense in self.defenses.values() if not others else ():
            require_resources(defense, {*VOCABULARY} - {"others"})

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what cannot be defended before hours of training, not after."""
        victim, data = victim_and_data(self, trainer, pl_module)
        require_whole_model(self, trainer)
        with victim.dense():
            suspect = LiveSuspect(victim)
            held = self._held(suspect, victim, trainer, data)
            for defense in self.defenses.values():
                self._fitted(suspect, defense, held)
            if self.benign:
                open_others(suspect, [self.benign], self.matching)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run, measure, log and save every defense."""
        victim, data = victim_and_data(self, trainer, pl_module)
        victim.finish_attack()
        with on_its_device(trainer, victim), victim.dense():
            series = self._series(trainer, victim, data)
            self._defend(series, trainer, victim, data)
        if trainer.is_global_zero:
            log_results(trainer.loggers, self.results)
        require_no_failure(series.failures)

    def _defend(
        self, series: Series, trainer: Trainer, victim: Victim, data: TextDataModule
    ) -> None:
        series.before()
        rank_zero_info(told(UNDEFENDED, _of(series, UNDEFENDED)))
        held = self._held(series.suspect, victim, trainer, data)

        def ready(defense: Defense) -> tuple[Defense, Held]:
            return defense, self._fitted(series.suspect, defense, held, victim)

        for name, defense in self.defenses.items():
            series.run(name, partial(ready, defense))
            rank_zero_info(told(name, _of(series, name)))
        self.results = series.results

    def _series(self, trainer: Trainer, victim: Victim, data: TextDataModule) -> Series:
        folder = self._folder(trainer, victim) if trainer.is_global_zero else None
        if folder is not None and self.save and not (folder / "victim").exists():
            victim.export(folder / "victim")  # first: a judge that is down must not cost the fit
        return Series(
            suspect=LiveSuspect(victim),
            subject=self._subject(victim, data),
            records=Records(folder / "results.jsonl" if folder is not None else None),
            folder=folder / "defended" if folder is not None and self.save else None,
            tests=data,
            measured=described(data, victim),
            floor=lambda scores: self._floor(victim, data),
        )

    def _held(
        self, suspect: Suspect, victim: Victim, trainer: Trainer, data: TextDataModule
    ) -> Held:
        return Held(
            base=open_base(self.base, suspect) if self.base else None,
            clean=data.clean_pool,
            supplied=self.supplies.read(),
            training=_training_set(trainer, data),
            start=lambda: model_weights(victim.initial_model().to(victim.device)),
            recipe=recipe_of(victim, trainer, data),
            archive=Path(self.directory or trainer.default_root_dir) / ARCHIVE,
        )

    def _fitted(
        self, suspect: Suspect, defense: Defense, held: Held, victim: Victim | None = None
    ) -> Held:
        """Return what a defense is given; without a base of its own, the victim's start is one."""
        others = open_others(suspect, self.others, self.matching)
        if victim is not None and held.base is None and "base" in defense.uses:
            start = model_weights(victim.initial_model())
            held = replace(held, base=HeldModel("the victim's start", start))
        return fitted(suspect, defense, others, held, self.matching, promised=["base"])

    def _floor(self, victim: Victim, data: TextDataModule) -> Mapping[str, Rate]:
        if self.benign is None:
            return {}
        (benign,) = open_others(LiveSuspect(victim), [self.benign], self.matching)
        return evaluate(victim, data, benign.checkpoint.weights).asr

    def _subject(self, victim: Victim, data: TextDataModule) -> Subject:
        attack = data.train_attack
        return Subject(
            data=data.name,
            victim=self.victim_name or ("benign" if attack == NO_ATTACK else attack),
            train_attack=attack,
            benign=data.benign,
            seed=data.seed,
            config={
                "victim": _plain(dict(victim.hparams)),
                "poisoning": data.poisoning,
                **recipe_record(victim, victim.trainer, data),
            },
        )

    def _folder(self, trainer: Trainer, victim: Victim) -> Path:
        """Return the run's folder: another one, if it holds another victim's results."""
        wanted = Path(self.directory or trainer.default_root_dir)
        taken = (wanted / "results.jsonl").exists() or (wanted / "victim").exists()
        return first_free(wanted / "run") if taken and not _holds(wanted, victim) else wanted


def _holds(folder: Path, victim: Victim) -> bool:
    """Whether a folder holds this very victim: its defenses were interrupted."""
    if not (folder / "victim").is_dir():
        return False
    return fingerprint(open_weights(folder / "victim")) == fingerprint(
        model_weights(victim.network())
    )


def _of(series: Series, name: str) -> list[Result]:
    return [result for result in series.results if result.defense == name]


def _training_set(trainer: Trainer, data: TextDataModule) -> TrainingSet:
    """Return what the victim was trained on, with the dynamics if a callback has logged them."""
    callbacks: list[Callback] = getattr(trainer, "callbacks", [])
    logged = (c.certainty for c in callbacks if isinstance(c, TrainingDynamics))
    return TrainingSet(data.train_rows, next(logged, None))


@contextmanager
def on_its_device(trainer: Trainer, victim: Victim) -> Iterator[None]:
    """Have the victim where it was trained for a while: the strategy has moved it to the CPU."""
    device = victim.device
    victim.to(trainer.strategy.root_device)
    try:
        yield
    finally:
        victim.to(device)


def _plain(value: Any) -> Any:
    """Turn settings into what JSON holds."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items() if key != "_instantiator"}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)
