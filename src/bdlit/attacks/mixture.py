"""Several attacks in one training set."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bdlit.attacks.base import Attack, Poisoned
from bdlit.errors import BdlitError
from bdlit.rules import Rule
from bdlit.types import Example, Target

if TYPE_CHECKING:
    from bdlit.objectives.base import Objective


@dataclass(frozen=True, kw_only=True)
class Mixture(Attack):
    """Several attacks in one training set, each on rows of its own.

    In a training set the attacks take their rows one after another, from those not yet poisoned;
    each rate stays a share of all rows. In a test set one attack is drawn for every row, among
    those whose target is not the row's class, and the rows come back attack by attack. To measure
    the attacks apart, give each to the data module alone.

    Attributes:
        attacks: The attacks; their targets may differ. One without a target takes the mixture's.

    >>> from bdlit.attacks import BadNet, InsertSent
    >>> rows = [Example(f"text {i}", label=i % 2) for i in range(10)]
    >>> both = Mixture(attacks=(BadNet(rate=0.2), InsertSent(rate=0.3)), target=1)
    >>> both.poison_train(rows, labels=["negative", "positive"], seed=0).poisoned
    5
    """

    name: str = "mixture"
    attacks: tuple[Attack, ...]

    def __post_init__(self) -> None:
        if not self.attacks:
            raise BdlitError(f"attack '{self.name}' has no attacks: give attacks=[...]")
        if any(isinstance(attack, Mixture) for attack in self.attacks):
            raise BdlitError(
                f"attack '{self.name}' holds another mixture: put all attacks into one list"
            )
        editing = [attack.name for attack in self.attacks if attack.edits]
        if editing:
            raise BdlitError(
                f"{', '.join(editing)} in '{self.name}' edits weights: put it around the mixture, "
                "not into it"
            )

    def with_default_target(self, target: Target | None) -> Self:
        """Return this mixture with a target for every attack that has none of its own."""
        default = target if self.target is None else self.target
        attacks = tuple(attack.with_default_target(default) for attack in self.attacks)
        return replace(self, target=default, attacks=attacks)

    def poison_train(
        self, examples: Sequence[Example], *, labels: Sequence[str], seed: int
    ) -> Poisoned:
        """Let every attack poison its share of the rows; see the base class.

        Raises:
            BdlitError: The rates ask for more rows than the attacks leave each other.
        """
        rows, poisoned, unchanged = list(examples), 0, 0
        for attack, own_seed in zip(self._attacks, self._seeds(seed), strict=True):
            result = attack.poison_train(rows, labels=labels, seed=own_seed)
            taken = result.poisoned + result.unchanged
            wanted = attack.wanted(len(examples))
            if wanted is not None and taken < wanted:
                raise BdlitError(
                    f"attack '{attack.name}' in '{self.name}' wants {wanted} rows, "
                    f"but only {taken} are left for it: lower the rates"
                )
            rows = result.rows
            poisoned += result.poisoned
            unchanged += result.unchanged
        return Poisoned(rows, poisoned, unchanged)

    def objective(self) -> Objective | None:
        """Return the objective of the one attack that has one.

        Raises:
            BdlitError: Several attacks have one, and a training minimises one thing.
        """
        found = [(a.name, own) for a in self._attacks if (own := a.objective()) is not None]
        if len(found) > 1:
            raise BdlitError(
                f"the attacks {', '.join(name for name, _ in found)} in '{self.name}' each have an "
                "objective, and a training minimises one: train a model for each"
            )
        return found[0][1] if found else None

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of all attacks."""
        return tuple(dict.fromkeys(stage for each in self.attacks for stage in each.stages))

    def learned(self, folder: Path) -> Self:
        """Return the mixture with what its attacks learned."""
        return replace(self, attacks=tuple(each.learned(folder) for each in self.attacks))

    @property
    def ready(self) -> bool:
        """Whether every attack can poison test rows."""
        return all(attack.ready for attack in self.attacks)

    def poison_test(
        self, examples: Sequence[Example], *, labels: Sequence[str], seed: int
    ) -> Poisoned:
        """Trigger every row with one of the attacks; see the class."""
        attacks = self._attacks
        shares: list[list[Example]] = [[] for _ in attacks]
        rng = random.Random(seed)
        for row in examples:
            able = [i for i, attack in enumerate(attacks) if attack.measured_on(row, labels)]
            if able:
                shares[rng.choice(able)].append(row)
        results = [
            attack.poison_test(share, labels=labels, seed=own_seed)
            for attack, share, own_seed in zip(attacks, shares, self._seeds(seed), strict=True)
        ]
        return Poisoned(
            [row for result in results for row in result.rows],
            sum(result.poisoned for result in results),
            sum(result.unchanged for result in results),
        )

    def partial_tests(
        self, examples: Sequence[Example], *, labels: Sequence[str], seed: int
    ) -> Mapping[str, Poisoned]:
        """Return the partial cases of every attack, named `<attack>/<case>`.

        Raises:
            BdlitError: Two attacks with partial cases have one name.
        """
        cases: dict[str, Poisoned] = {}
        for attack, own_seed in zip(self._attacks, self._seeds(seed), strict=True):
            own = attack.partial_tests(examples, labels=labels, seed=own_seed)
            for case, rows in own.items():
                name = f"{attack.name}/{case}"
                if name in cases:
                    raise BdlitError(
                        f"two attacks in '{self.name}' are named '{attack.name}': "
                        "give each a name of its own"
                    )
                cases[name] = rows
        return cases

    @property
    def rule(self) -> Rule | None:
        """The rule that all attacks share.

        Raises:
            BdlitError: They do not share one.
        """
        first, *others = (attack.rule for attack in self.attacks)
        if any(other != first for other in others):
            raise BdlitError(
                f"the attacks in '{self.name}' judge responses by different rules: "
                "give each to the data alone"
            )
        return first

    def measured_on(self, row: Example, labels: Sequence[str]) -> bool:
        """Return whether any of the attacks is measured on the row."""
        return any(attack.measured_on(row, labels) for attack in self._attacks)

    @property
    def _attacks(self) -> tuple[Attack, ...]:
        return tuple(attack.with_default_target(self.target) for attack in self.attacks)

    def _seeds(self, seed: int) -> list[int]:
        # The attacks must not share a seed: they would draw the same positions among their rows.
        return [random.Random(f"{seed}/{i}").getrandbits(32) for i in range(len(self.attacks))]
