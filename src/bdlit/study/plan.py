"""What a study consists of: models to train, and suspects to defend; no work is done here."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from bdlit.attacks.base import Attack
from bdlit.attacks.subtraction import ConflictSubtraction
from bdlit.data.base import TextDataModule
from bdlit.defenses.base import Defense
from bdlit.defenses.substitution import ModuleSubstitution
from bdlit.errors import BdlitError, did_you_mean
from bdlit.purification.compatibility import Matching
from bdlit.purification.hold import Supplies
from bdlit.victims.base import Victim

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

DataFactory: TypeAlias = "Callable[[], TextDataModule]"
VictimFactory: TypeAlias = "Callable[[], Victim]"
TrainerFactory: TypeAlias = "Callable[[], Trainer]"


PurifiedName: TypeAlias = tuple[str, str]
"""What a defense has made of a model of the same study: (model, treatment)."""


@dataclass(frozen=True, kw_only=True)
class OwnSettings:
    """Settings of one model of a study, over those of the study.

    Attributes:
        victim: Settings of its victim, such as `learning_rate`.
        data: Settings of its data, such as `batch_size`.
        trainer: Settings of its trainer, such as `max_epochs`.
    """

    victim: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model of a study, trained once per seed.

    Attributes:
        attack: Attack on the model, at whatever stage; none makes a benign model.
        poisoned_train: Ready-poisoned file in place of an attack.
        data: Other data than the study's, e.g. for a proxy of another domain.
        release: An attack on the weights after training; now `ConflictSubtraction` goes around
            the `attack`, and this gives a warning.
        tuned_from: A model to fine-tune further, in place of the start of all models: another
            model of the study by its name, or a purified one as [model, treatment]. With an attack
            of a low rate, this asks how soon a backdoor is learned again.
        benign: Whether nobody has attacked the model; by default it is so where it has no attack
            of any stage, no poisoned file, and is tuned from no model that is attacked or purified.
            Only a benign model can be the floor, and all others are suspects.
        recipe: Name of the recipe that it is trained by, in place of the study's. On the command
            line it lies beneath what the study states; in Python, `settings` says what it sets.
        settings: Settings of victim, data and trainer for this model alone.
    """

    attack: Attack | None = None
    poisoned_train: str | None = None
    data: Callable[[], TextDataModule] | None = None
    release: ConflictSubtraction | None = None
    tuned_from: str | PurifiedName | None = None
    benign: bool | None = None
    recipe: str | None = None
    settings: OwnSettings = field(default_factory=OwnSettings)

    def __post_init__(self) -> None:
        if self.release is not None:
            warnings.warn(
                "`release` of a model is now an attack: put ConflictSubtraction around `attack`",
                UserWarning,
                stacklevel=2,
            )
            within = replace(self.release, attack=self.attack, name="")
            object.__setattr__(self, "attack", within)
            object.__setattr__(self, "release", None)
        if self.attack is not None:
            self.attack.require_stage()
        if self.benign and (self.attack is not None or self.poisoned_train is not None):
            raise BdlitError("a model with an attack or a poisoned file cannot be `benign: true`")

    @property
    def attacked(self) -> bool:
        """Whether it has an attack of its own, at any stage."""
        return self.attack is not None or self.poisoned_train is not None


@dataclass(frozen=True, kw_only=True)
class Treatment:
    """One defense of a study, and the models it is given.

    Attributes:
        defense: The method.
        others: Names of the models beside the suspect, or `all`; the suspect itself is left out,
            and so are models that were tuned from a purified one. `start` is the checkpoint that
            all were fine-tuned from.
        strategy_from: A model and its treatment by GMS whose strategy the defense applies.
    """

    defense: Defense
    others: Sequence[str] | Literal["all"] = ()
    strategy_from: PurifiedName | None = None


@dataclass(frozen=True, kw_only=True)
class Start:
    """The checkpoint that all models of a seed are fine-tuned from, where none is at hand.

    Attributes:
        victim: The model, usually from a config.
        data: What it learns first.
        trainer: How; by default as the study's models.
    """

    victim: Callable[[], Victim]
    data: Callable[[], TextDataModule]
    trainer: Callable[[], Trainer] | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study: which models, which suspects, which defenses, which seeds.

    Raises:
        BdlitError: A name that a treatment, the suspects or the floor refer to is no model.
    """

    name: str
    data: DataFactory
    victim: VictimFactory
    trainer: TrainerFactory
    models: dict[str, Model]
    defenses: dict[str, Treatment] = field(default_factory=dict)
    start: Start | None = None
    suspects: Sequence[str] | None = None
    floor: str | None = None
    seeds: Sequence[int] = (0,)
    supplies: Supplies = field(default_factory=Supplies)
    matching: Matching = field(default_factory=Matching)
    recipe: str | None = None

    def __post_init__(self) -> None:
        if not self.models:
            raise BdlitError(f"study '{self.name}' has no models: name at least one under `models`")
        if not self.seeds:
            raise BdlitError(f"study '{self.name}' has no seeds: give e.g. seeds: [0, 1, 2]")
        if START in self.models:
            raise BdlitError(f"'{START}' is the name of the common start: call the model otherwise")
        self._require_models("suspects", self.suspects or ())
        self._require_models("floor", [self.floor] if self.floor else ())
        for name, model in self.models.items():
            if isinstance(model.tuned_from, str):
                self._require_models(f"models.{name}.tuned_from", [model.tuned_from])
            else:
                self._require_purified(f"models.{name}.tuned_from", model.tuned_from)
            self._require_no_circle(name)
        if self.floor is not None and not self.is_benign(self.floor):
            raise BdlitError(
                f"study '{self.name}', floor: '{self.floor}' is attacked, and only a benign model "
                "is a floor; name one, or say `benign: true` of a model that is"
            )
        for name, treatment in self.defenses.items():
            self._require_purified(f"defenses.{name}.strategy_from", treatment.strategy_from)
            if treatment.strategy_from and not isinstance(treatment.defense, ModuleSubstitution):
                raise BdlitError(
                    f"defenses.{name}.strategy_from is for ModuleSubstitution, not for "
                    f"{treatment.defense.name}"
                )
            if not isinstance(treatment.others, str):
                named = [other for other in treatment.others if other != START]
                self._require_models(f"defenses.{name}.others", named)
            for suspect in self.suspect_names:
                if "others" in treatment.defense.needs and not self.others_of(name, suspect):
                    raise BdlitError(
                        f"defenses.{name} has no other model for suspect '{suspect}': "
                        "name some in `others`, or write others: all"
                    )

    def _require_no_circle(self, name: str) -> None:
        """Refuse models that are tuned from each other."""
        seen = [name]
        while isinstance(before := self.models[seen[-1]].tuned_from, str):
            if before in seen:
                way = " is tuned from ".join([*seen, before])
                raise BdlitError(f"study '{self.name}' goes round in a circle: {way}")
            seen.append(before)

    def _require_models(self, where: str, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.models:
                raise BdlitError(
                    f"study '{self.name}', {where}: no model '{name}'; "
                    f"{did_you_mean(name, self.models)}"
                )

    def _require_purified(self, where: str, purified: PurifiedName | None) -> None:
        if purified is None:
            return
        model, treatment = purified
        self._require_models(where, [model])
        if model not in self.suspect_names:
            raise BdlitError(f"study '{self.name}', {where}: '{model}' is not among the suspects")
        if treatment not in self.defenses or where.startswith(f"defenses.{treatment}."):
            others = [name for name in self.defenses if where != f"defenses.{name}.strategy_from"]
            raise BdlitError(
                f"study '{self.name}', {where}: no other defense '{treatment}'; "
                f"{did_you_mean(treatment, others)}"
            )

    @property
    def suspect_names(self) -> list[str]:
        """Models to defend: those named, or all that were attacked from the start."""
        if self.suspects is not None:
            return list(self.suspects)
        attacked = [name for name in self.models if not self.is_benign(name)]
        return [name for name in attacked if not self._of_purified(name)]

    def is_benign(self, name: str) -> bool:
        """Whether nobody has attacked a model, as it says itself or as follows from its making."""
        model = self.models[name]
        if model.benign is not None:
            return model.benign
        if model.attacked or self._of_purified(name):
            return False
        return self.is_benign(model.tuned_from) if isinstance(model.tuned_from, str) else True

    def _of_purified(self, name: str) -> bool:
        """Whether a model was tuned from a purified one."""
        return isinstance(self.models[name].tuned_from, tuple | list)

    def others_of(self, treatment: str, suspect: str) -> list[str]:
        """Names of the models that a treatment of a suspect is given."""
        named = self.defenses[treatment].others
        plain = [name for name in self.models if not self._of_purified(name)]
        names = plain if named == "all" else list(named)
        return [name for name in names if name != suspect]

    def recipe_of(self, name: str) -> str | None:
        """Name of the recipe that a model is trained by; None where none is named."""
        return self.models[name].recipe or self.recipe

    def uses(self, resource: str) -> bool:
        """Whether some defense is given a resource, by its name in `Resources`."""
        return any(resource in treatment.defense.uses for treatment in self.defenses.values())

    @property
    def attacks(self) -> list[Attack]:
        """Every attack of the study: each model is measured against all of them."""
        return [model.attack for model in self.models.values() if model.attack]

    @property
    def learning(self) -> list[str]:
        """Models whose attack learns its trigger with them: it is measured once they are there."""
        return [n for n, m in self.models.items() if m.attack and not m.attack.ready]


START = "start"
"""Name of the common start among the model folders."""


def shard_of(text: str | None) -> tuple[int, int]:
    """Read `i/n`: shard i of n, counted from 0.

    >>> shard_of("1/4"), shard_of(None)
    ((1, 4), (0, 1))
    """
    if text is None:
        return 0, 1
    try:
        index, count = (int(part) for part in text.split("/"))
    except ValueError:
        index, count = -1, 0
    if not 0 <= index < count:
        raise BdlitError(f"--shard {text} is no shard: give i/n with i from 0 to n-1, e.g. 0/4")
    return index, count
