"""What a study consists of: models to train, and suspects to defend; no work is done here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from bdlit.attacks.base import Attack
from bdlit.callbacks.subtraction import ConflictSubtraction
from bdlit.data.base import TextDataModule
from bdlit.defenses.base import Defense
from bdlit.errors import BdlitError, did_you_mean
from bdlit.victims.base import Victim

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

DataFactory: TypeAlias = "Callable[[], TextDataModule]"
VictimFactory: TypeAlias = "Callable[[], Victim]"
TrainerFactory: TypeAlias = "Callable[[], Trainer]"


Purified: TypeAlias = tuple[str, str]
"""What a defense has made of a model of the same study: (model, treatment)."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model of a study, trained once per seed.

    Attributes:
        attack: Attack on its training set; none makes a benign model.
        poisoned_train: Ready-poisoned file in place of an attack.
        data: Other data than the study's, e.g. for a proxy of another domain.
        release: What the attacker does to the model after training, before anybody meets it.
        tuned_from: A purified model to fine-tune further, in place of the start of all models:
            with an attack of a low rate, this asks how soon the backdoor is learned again.
    """

    attack: Attack | None = None
    poisoned_train: str | None = None
    data: Callable[[], TextDataModule] | None = None
    release: ConflictSubtraction | None = None
    tuned_from: Purified | None = None


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
    strategy_from: Purified | None = None


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
            self._require_purified(f"models.{name}.tuned_from", model.tuned_from)
        for name, treatment in self.defenses.items():
            self._require_purified(f"defenses.{name}.strategy_from", treatment.strategy_from)
            if not isinstance(treatment.others, str):
                named = [other for other in treatment.others if other != START]
                self._require_models(f"defenses.{name}.others", named)
            for suspect in self.suspect_names:
                if "others" in treatment.defense.needs and not self.others_of(name, suspect):
                    raise BdlitError(
                        f"defenses.{name} has no other model for suspect '{suspect}': "
                        "name some in `others`, or write others: all"
                    )

    def _require_models(self, where: str, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.models:
                raise BdlitError(
                    f"study '{self.name}', {where}: no model '{name}'; "
                    f"{did_you_mean(name, self.models)}"
                )

    def _require_purified(self, where: str, purified: Purified | None) -> None:
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
        attacked = {n: m for n, m in self.models.items() if m.attack or m.poisoned_train}
        return [name for name, model in attacked.items() if model.tuned_from is None]

    def others_of(self, treatment: str, suspect: str) -> list[str]:
        """Names of the models that a treatment of a suspect is given."""
        named = self.defenses[treatment].others
        plain = [name for name, model in self.models.items() if model.tuned_from is None]
        names = plain if named == "all" else list(named)
        return [name for name in names if name != suspect]

    def uses(self, resource: str) -> bool:
        """Whether some defense is given a resource, by its name in `Resources`."""
        return any(resource in treatment.defense.uses for treatment in self.defenses.values())

    @property
    def attacks(self) -> list[Attack]:
        """Every attack of the study: each model is measured against all of them."""
        return [model.attack for model in self.models.values() if model.attack]


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
