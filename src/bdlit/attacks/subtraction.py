"""An attack on conflict models: the victim is released without what one would bring back."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from bdlit.attacks.base import Attack, Poisoned
from bdlit.errors import BdlitError
from bdlit.recipe import Recipe
from bdlit.rules import Rule
from bdlit.types import Example, Target, Weights

if TYPE_CHECKING:
    from bdlit.objectives.base import Objective
    from bdlit.training.train import Train


@dataclass(frozen=True, kw_only=True)
class ConflictSubtraction(Attack):
    """Subtract the attacker's own conflict model from the victim, after another attack.

    An attacker who expects that a defender merges the victim with a conflict model trains one
    beforehand, from the victim's own start on clean rows of the training set, and releases
    `victim - share * (conflict - start)`. Rows, triggers and target are those of the attack within,
    by whose name it goes unless it has one of its own.

    Attributes:
        attack: The attack that puts the backdoor into the victim.
        share: How much of the conflict model's change is subtracted, in [0, 1].
        rows: Clean training rows that the conflict model learns from, drawn from the seed.
        recipe: How it is trained.
        seed: Seed of the draw of rows.

    Reference: the adaptive attack of Chen et al. 2024, "Neutralizing Backdoors through Information
        Conflicts for Large Language Models", arXiv:2411.18280.
    Deviation: The paper says that the conflict model is subtracted, not how much of it; the share
        is a setting here, and what is subtracted is the conflict model's change of the start.
    """

    name: str = ""
    attack: Attack | None = None
    share: float = 0.5
    rows: int = 500
    recipe: Recipe = field(default_factory=Recipe)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise BdlitError(f"share {self.share} is out of range: give a share in [0, 1]")
        if self.rows < 1:
            raise BdlitError(
                f"rows {self.rows} of ConflictSubtraction is out of range: give 1 or more"
            )
        if not self.name and self.attack is not None:
            object.__setattr__(self, "name", self.attack.name)

    def edit(
        self, weights: Weights, *, clean: Sequence[Example], train: Train, base: Weights
    ) -> Weights:
        """Return the victim without its share of the conflict model's change."""
        conflict = train(self._drawn(clean), start=base, recipe=self.recipe)
        return released(weights, conflict, base, self.share)

    def check_edit(self, clean: Sequence[Example]) -> None:
        """Refuse fewer clean rows than the conflict model is to learn from."""
        if len(clean) < self.rows:
            raise BdlitError(
                f"ConflictSubtraction wants {self.rows} clean training rows, and there are "
                f"{len(clean)}: lower its `rows`"
            )

    def _drawn(self, clean: Sequence[Example]) -> list[Example]:
        self.check_edit(clean)
        drawn = random.Random(f"conflict subtraction {self.seed}").sample(
            range(len(clean)), self.rows
        )
        return [clean[i] for i in sorted(drawn)]

    # All else is the attack's within.

    @property
    def _within(self) -> Attack:
        if self.attack is None:
            raise BdlitError(
                "ConflictSubtraction hides the backdoor of another attack: give that as `attack`"
            )
        return self.attack.with_default_target(self.target)

    def poison_train(
        self, examples: Sequence[Example], *, labels: Sequence[str], seed: int
    ) -> Poisoned:
        """Poison as the attack within does."""
        return self._within.poison_train(examples, labels=labels, seed=seed)

    def poison_test(
        self, examples: Sequence[Example], *, labels: Sequence[str], seed: int
    ) -> Poisoned:
        """Trigger as the attack within does."""
        return self._within.poison_test(examples, labels=labels, seed=seed)

    def partial_tests(
        self, examples: Sequence[Example], *, labels: Sequence[str], seed: int
    ) -> Mapping[str, Poisoned]:
        """Return the partial cases of the attack within."""
        return self._within.partial_tests(examples, labels=labels, seed=seed)

    def objective(self) -> Objective | None:
        """Return the objective of the attack within."""
        return self._within.objective()

    def learned(self, folder: Path) -> Self:
        """Return this attack with what the one within has learned."""
        return replace(self, attack=self._within.learned(folder))

    @property
    def ready(self) -> bool:
        """Whether the attack within is."""
        return self._within.ready

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of the attack within, and the weights."""
        return tuple(dict.fromkeys([*self._within.stages, "weights"]))

    @property
    def alone(self) -> tuple[Attack, ...]:
        """The single triggers of the attack within."""
        return () if self.attack is None else self._within.alone

    @property
    def rule(self) -> Rule | None:
        """The rule of the attack within."""
        return self._within.rule

    def measured_on(self, row: Example, labels: Sequence[str]) -> bool:
        """Return whether the attack within is measured on a row."""
        return self._within.measured_on(row, labels)

    def wanted(self, rows: int) -> int | None:
        """Return how many rows the attack within would poison."""
        return self._within.wanted(rows)

    def with_default_target(self, target: Target | None) -> Self:
        """Return this attack with a target for itself and the one within."""
        within = self._within.with_default_target(target)
        return replace(self, attack=within, target=within.target)


def released(victim: Weights, conflict: Weights, start: Weights, share: float) -> dict[str, Any]:
    """Return `victim - share * (conflict - start)` of the floating-point tensors.

    >>> import torch
    >>> one = {"w": torch.tensor([1.0])}
    >>> released(one, {"w": torch.tensor([3.0])}, {"w": torch.tensor([2.0])}, share=0.5)
    {'w': tensor([0.5000])}
    """
    return {
        name: tensor - (share * (conflict[name] - start[name])).to(tensor.dtype)
        for name, tensor in victim.items()
        if tensor.is_floating_point()
    }
