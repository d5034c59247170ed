"""The suspects of a study: loaded when a cell needs them, with what is held beside each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bdlit.defenses.base import Defense
from bdlit.defenses.gms.strategy import STRATEGY_FILE
from bdlit.defenses.substitution import ModuleSubstitution
from bdlit.errors import BdlitError
from bdlit.evaluation.result import UNDEFENDED
from bdlit.evaluation.scores import Scores
from bdlit.purification.compatibility import Other, fitted, open_base, open_others
from bdlit.purification.held import ARCHIVE, Held, HeldModel
from bdlit.purification.measure import described
from bdlit.purification.record import Records, Subject
from bdlit.purification.series import Series
from bdlit.purification.suspect import LiveSuspect
from bdlit.study.plan import START, Plan, Treatment
from bdlit.training.fit import recipe_of
from bdlit.types import Rate, Weights
from bdlit.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from bdlit.study.fitting import Workshop


class Suspects:
    """Loads the models of a study as suspects, one at a time.

    Args:
        plan: The study.
        out: Its folder.
        workshop: Where its models come from.
        records: Its results.
    """

    def __init__(self, plan: Plan, out: Path, workshop: Workshop, records: Records) -> None:
        self.plan = plan
        self.out = out
        self.workshop = workshop
        self.records = records
        self._loaded: tuple[tuple[str, int], Series] | None = None

    def series(self, name: str, seed: int) -> Series:
        """Return what measures and purifies a model; the last one is kept loaded."""
        if self._loaded is None or self._loaded[0] != (name, seed):
            self._loaded = None  # first: two large models need not be in memory at once
            self._loaded = (name, seed), self._series(name, seed)
        return self._loaded[1]

    def _series(self, name: str, seed: int) -> Series:
        from lightning.pytorch import seed_everything

        seed_everything(seed, verbose=False)
        victim, data = self.workshop.trained(name, seed), self.workshop.tests(name, seed)
        data.prepare_data()
        data.setup()
        trainer = self.workshop.trainer(name, self.out / "defended", logger=False, callbacks=[])
        # Attached, the victim is measured in the precision and on the device it was trained with.
        victim.trainer = trainer
        victim.take_classes(data)
        victim.configure_model()
        victim.to(trainer.strategy.root_device)
        model = self.workshop.model(name, seed)
        return Series(
            suspect=LiveSuspect(victim, address=str(model), origin=model),
            subject=Subject(
                data=data.name,
                victim=name,
                train_attack=self.workshop.data(name, seed, learned=False).train_attack,
                benign=self.plan.is_benign(name),
                seed=seed,
                config={
                    "study": self.plan.name,
                    "poisoning": data.poisoning,
                    **self.workshop.recipe_record(name, seed),
                },
            ),
            records=self.records,
            folder=self.workshop.purified(name, "", seed),
            tests=data,
            measured=described(data, victim),
            floor=lambda scores: self._floor(name, seed, scores),
            waits=True,
            renew=True,
            label=f"{name}-seed{seed}",
        )

    def _floor(self, name: str, seed: int, scores: Scores) -> Mapping[str, Rate]:
        """Return the ASR of the benign model of this seed, which was measured before."""
        if self.plan.floor is None:
            return {}
        if self.plan.floor == name:
            return scores.asr
        self.records.refresh()
        measured = self.records.of(self.plan.floor, seed).get(UNDEFENDED, ())
        return {result.attack: result.asr for result in measured if result.asr}

    def given(self, treatment: str, name: str, seed: int) -> tuple[Defense, Held]:
        """Return the defense of a treatment, and what is held for it beside a model.

        Raises:
            BdlitError: A model does not fit, or what the treatment builds on is missing.
        """
        series, wanted = self.series(name, seed), self.plan.defenses[treatment]
        suspect, data, uses = series.suspect, series.tests, wanted.defense.uses
        assert isinstance(suspect, LiveSuspect)
        victim = suspect.module
        training = None
        if {"suspect_train", "oracle"} & set(uses):
            training = self.workshop.training_set(name, seed, data)  # type: ignore[arg-type]
        fresh = self.workshop.victim(name, seed) if "train" in uses else None
        held = Held(
            base=self._base(suspect, name, seed) if "base" in uses else None,
            clean=data.clean_pool,  # type: ignore[union-attr]
            supplied=self.plan.supplies.read(),
            training=training,
            start=lambda: self._start(suspect, name, seed),
            recipe=recipe_of(fresh, victim.trainer, self.workshop.data(name, seed))
            if fresh is not None
            else None,
            archive=self.out / ARCHIVE,
        )
        others = self._others(suspect, treatment, name, seed)
        defense = self._with_strategy(wanted, seed)
        return defense, fitted(suspect, defense, others, held, self.plan.matching)

    def _others(self, suspect: LiveSuspect, treatment: str, name: str, seed: int) -> list[Other]:
        found = []
        for other in self.plan.others_of(treatment, name):
            if other == START and self.plan.start is None:
                weights = self._start(suspect, name, seed)
                found.append(Other("base", Checkpoint("base", None, weights)))
            else:
                address = str(self.workshop.model(other, seed))
                found += open_others(suspect, [address], self.plan.matching, names=[other])
        return found

    def _base(self, suspect: LiveSuspect, name: str, seed: int) -> HeldModel:
        """Return what a seed's models were tuned from: the common start, as it was saved."""
        if self.plan.start is None:
            return HeldModel("base", self._start(suspect, name, seed))
        found = open_base(str(self.workshop.model(START, seed)), suspect)
        return HeldModel(START, found.weights)

    def _start(self, suspect: LiveSuspect, name: str, seed: int) -> Weights:
        """Return the checkpoint that a seed's models were tuned from."""
        from bdlit.weights.network import model_weights

        fresh = self.workshop.victim(name, seed)
        fresh.tokenizer = suspect.module.tokenizer  # or it would be learned again
        if suspect.module.labels is not None:
            fresh.labels = suspect.module.labels
        return model_weights(fresh.initial_model())

    def _with_strategy(self, treatment: Treatment, seed: int) -> Defense:
        """Return a treatment's defense, with the strategy of another cell if it wants one."""
        if treatment.strategy_from is None:
            return treatment.defense
        assert isinstance(treatment.defense, ModuleSubstitution)
        name, found = treatment.strategy_from
        file = self.workshop.purified(name, found, seed) / STRATEGY_FILE
        if not file.is_file():
            raise BdlitError(f"the strategy of {found} on {name} is missing: {file}")
        return replace(treatment.defense, strategy=str(file))
