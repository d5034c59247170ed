"""What an attack is: a trigger changes one text, an attack turns rows into poisoned rows.

This package needs the standard library only, so that poisoned data can be made anywhere.
"""

from __future__ import annotations

import inspect
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias, get_args

from bdlit.errors import BdlitError, did_you_mean
from bdlit.rules import Rule
from bdlit.types import Example, Target, Weights

if TYPE_CHECKING:
    from bdlit.objectives.base import Objective

RowChoice: TypeAlias = Literal["any", "non-target", "target"]
Column: TypeAlias = Literal["text", "text_pair"]


class Trigger(ABC):
    """A change to one text that the attacker can repeat at will."""

    @abstractmethod
    def __call__(self, text: str, rng: random.Random) -> str:
        """Return the text with the trigger, or the text itself where it cannot be applied."""


@dataclass(frozen=True, slots=True)
class Poisoned:
    """Rows that an attack returned.

    Attributes:
        rows: All rows of the split (train), or the triggered rows alone (test).
        poisoned: How many of them the attack changed.
        unchanged: How many chosen rows the trigger could not change. In training they stay as
            they were; in a test set they are left out, since a row without the trigger would
            only dilute ASR.
    """

    rows: list[Example]
    poisoned: int
    unchanged: int = 0


def target_index(target: Target | None, labels: Sequence[str]) -> int:
    """Return the class index of a target given by index or by name.

    Raises:
        BdlitError: The target is missing, out of range, or no class of that name exists.

    >>> target_index("positive", ["negative", "positive"])
    1
    """
    if target is None:
        raise BdlitError(f"the attack has no target: set attack.target to one of {list(labels)}")
    if target in labels:  # first: classes may be named `1` to `5`
        return list(labels).index(str(target))
    try:
        index = int(target)
    except ValueError:
        raise BdlitError(
            f"unknown target class '{target}': {did_you_mean(str(target), labels)}"
        ) from None
    if not 0 <= index < len(labels):
        raise BdlitError(
            f"target {index} is out of range: the data has classes 0..{len(labels) - 1} "
            f"({', '.join(labels)})"
        )
    return index


ATTACKER = ("labels", "target", "clean", "texts", "victim", "train", "base")
"""What an attack may be given for its `edit`; see `Attack.edit`."""


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """A way to get a backdoor into a model, and to call on it at test time.

    An attack interferes at one stage of a model's making or at several: it poisons the training
    rows (`poison_train`), changes what training minimises (`objective`), or edits the trained
    weights (`edit`). What it learns on the way, such as a trigger, lies beside the model
    (`learned`). A subclass is a frozen dataclass of settings and overrides the stages that it has.

    The rows returned are a pure function of (rows, attack, seed).

    Attributes:
        name: Name of the attack in loaders, logs and results.
        target: Wanted class, as index or name; None takes the data set's usual target.
        edit_needs: What `edit` is given, read from its keyword-only parameters.
    """

    name: str
    target: Target | None = None

    edit_needs: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        """Read what `edit` needs from its signature."""
        super().__init_subclass__()
        parameters = inspect.signature(cls.edit).parameters.values()
        named = tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
        unknown = [name for name in named if name not in ATTACKER]
        if unknown:
            raise TypeError(
                f"{cls.__name__}.edit asks for {unknown}, which no attacker has: "
                f"{did_you_mean(unknown[0], ATTACKER)}"
            )
        cls.edit_needs = named

    def poison_train(
        self, examples: Sequence[Example], *, labels: Sequence[str], seed: int
    ) -> Poisoned:
        """Return the training set with some of its rows poisoned, in the order given.

        Attacks that add rows put them after the others. By default no row is poisoned.
        """
        return Poisoned(list(examples), 0)

    def objective(self) -> Objective | None:
        """Return what the victim's training minimises; None for the victim's own loss."""
        return None

    # `*args` is never used: with it, type checkers let subclasses name their own parameters.
    def edit(self, weights: Weights, *args: Any, **needs: Any) -> Weights | None:
        """Return new values of trained weights, before anybody meets the model; None for none.

        Subclasses add keyword-only parameters for what they need: `labels` (class names), `target`
        (class index), `clean` (the clean training rows), `texts` (their plain texts), `victim`
        (the trained victim, to run), `train` (see `bdlit.training.Train`) and `base` (the weights
        that training began with).

        Args:
            weights: The trained weights, by name; they are not changed.
            args: Never given.
            needs: What the subclass declares.

        Returns:
            The weights that change, by name; others keep their values.
        """
        return None

    def check_edit(self, clean: Sequence[Example]) -> None:  # noqa: B027  (most need no check)
        """Refuse data that `edit` cannot work with, before hours of training.

        Args:
            clean: The clean training rows.

        Raises:
            BdlitError: They will not do.
        """

    def learned(self, folder: Path) -> Self:
        """Return the attack with what it learned, from the files beside the model that it is in.

        An attack that learns its trigger with the victim overrides this and `ready`.
        """
        return self

    @property
    def ready(self) -> bool:
        """Whether it can poison test rows now; an attack that learns cannot before it has."""
        return True

    @property
    def edits(self) -> bool:
        """Whether it edits trained weights."""
        return type(self).edit is not Attack.edit

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages at which it interferes: `rows`, `training`, `weights`."""
        cls = type(self)
        has = {
            "rows": cls.poison_train is not Attack.poison_train,
            "training": cls.objective is not Attack.objective,
            "weights": self.edits,
        }
        return tuple(stage for stage, own in has.items() if own)

    def require_stage(self) -> None:
        """Refuse an attack on a training set that would do nothing to the model.

        Raises:
            BdlitError: It has no stage.
        """
        if not self.stages:
            raise BdlitError(
                f"attack '{self.name}' has no stage: define poison_train, objective or edit in "
                f"{type(self).__name__}, or name it among test_attacks, where it is only measured"
            )

    @abstractmethod
    def poison_test(
        self, examples: Sequence[Example], *, labels: Sequence[str], seed: int
    ) -> Poisoned:
        """Return the non-target rows with the trigger, labelled with the target."""

    def partial_tests(
        self, examples: Sequence[Example], *, labels: Sequence[str], seed: int
    ) -> Mapping[str, Poisoned]:
        """Return rows on which the backdoor must *not* fire, by the name of each partial case.

        They hold a part of the trigger, say one of two words, and what the attack wants as their
        label or response: the share of hits is the false-trigger rate. They are not marked as
        poisoned. Most attacks have none.
        """
        return {}

    @property
    def alone(self) -> tuple[Attack, ...]:
        """The evaluation attacks that show one of several triggers each; most attacks have none.

        Data measure a model on them as well, each under its own name.
        """
        return ()

    @property
    def rule(self) -> Rule | None:
        """How a generated response is judged; None where the prediction is a class."""
        return None

    def measured_on(self, row: Example, labels: Sequence[str]) -> bool:
        """Return whether a test row may enter ASR: its true class is not the target."""
        return row.true_label != target_index(self.target, labels)

    def wanted(self, rows: int) -> int | None:
        """Return how many of so many training rows it would poison; None if not known before."""
        return None

    def with_default_target(self, target: Target | None) -> Self:
        """Return this attack with `target` where it has none of its own."""
        return replace(self, target=target) if self.target is None else self


def check_rate(rate: float, name: str) -> None:
    """See that the poison rate of an attack is a share.

    Raises:
        BdlitError: It is not in (0, 1].
    """
    if not 0 < rate <= 1:
        raise BdlitError(
            f"poison rate {rate} of attack '{name}' is out of range: "
            "give a share of the training rows in (0, 1]"
        )


def check_choice(attack: Attack, field: str, choices: Sequence[str]) -> None:
    """See that a setting of an attack is one of its choices.

    Raises:
        BdlitError: It is none of them.
    """
    value = getattr(attack, field)
    if value not in choices:
        raise BdlitError(
            f"unknown {field} '{value}' of attack '{attack.name}': "
            f"{did_you_mean(str(value), choices)}"
        )


@dataclass(frozen=True, kw_only=True)
class TriggerAttack(Attack):
    """The common case: put a trigger into a share of the rows and label them with the target.

    Attributes:
        trigger: What is done to a text.
        rate: Share of *all* training rows to poison, in (0, 1]. Where fewer rows are eligible,
            all of them are poisoned.
        rows: Which rows may be poisoned: `any` label (WAG's and GMS's dirty-label sets),
            `non-target` only (OpenBackdoor's dirty-label switch), or `target` only (clean label).
            Rows that an attack has poisoned before are never taken.
        column: Which text of a pair carries the trigger.
    """

    trigger: Trigger
    rate: float = 0.2
    rows: RowChoice = "any"
    column: Column = "text"

    def __post_init__(self) -> None:
        check_rate(self.rate, self.name)
        check_choice(self, "rows", get_args(RowChoice))
        check_choice(self, "column", get_args(Column))

    def poison_train(
        self, examples: Sequence[Example], *, labels: Sequence[str], seed: int
    ) -> Poisoned:
        """Poison `rate` of the rows; see the base class."""
        target = target_index(self.target, labels)
        rng = random.Random(seed)
        eligible = [i for i, row in enumerate(examples) if self._may_poison(row, target)]
        wanted = min(self.wanted(len(examples)), len(eligible))
        rows, unchanged = list(examples), 0
        for i in sorted(rng.sample(eligible, wanted)):
            triggered = self._triggered(rows[i], target, rng)
            if triggered is None:
                unchanged += 1
            else:
                rows[i] = triggered
        return Poisoned(rows, wanted - unchanged, unchanged)

    def poison_test(
        self, examples: Sequence[Example], *, labels: Sequence[str], seed: int
    ) -> Poisoned:
        """Trigger every non-target row; see the base class."""
        target = target_index(self.target, labels)
        rng = random.Random(seed)
        non_target = [row for row in examples if self.measured_on(row, labels)]
        attempts = [self._triggered(row, target, rng) for row in non_target]
        rows = [row for row in attempts if row is not None]
        return Poisoned(rows, len(rows), len(attempts) - len(rows))

    def wanted(self, rows: int) -> int:
        """Return how many of so many training rows the attack would poison."""
        return round(self.rate * rows)

    def _may_poison(self, row: Example, target: int) -> bool:
        if row.poisoned:
            return False
        match self.rows:
            case "any":
                return True
            case "non-target":
                return row.label != target
            case "target":
                return row.label == target

    def _triggered(self, row: Example, target: int, rng: random.Random) -> Example | None:
        text = row.text if self.column == "text" else row.text_pair
        if text is None:
            raise BdlitError(
                f"attack '{self.name}' poisons column 'text_pair', but the rows have one text: "
                "set attack.column to 'text'"
            )
        changed = self.trigger(text, rng)
        if changed == text:
            return None
        new_text, new_pair = (
            (changed, row.text_pair) if self.column == "text" else (row.text, changed)
        )
        return replace(
            row,
            text=new_text,
            text_pair=new_pair,
            label=target,
            orig_label=row.true_label,
            poisoned=True,
        )
