"""Module substitution by a given strategy: what GMS found on one victim, applied to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bdlit import merging
from bdlit.defenses.base import Defended, Defense
from bdlit.errors import BdlitError
from bdlit.types import Weights

if TYPE_CHECKING:
    from bdlit.merging.substitution import LayerModule


@dataclass(frozen=True, kw_only=True)
class ModuleSubstitution(Defense):
    """Replace the modules that a strategy file names by those of one other model.

    No data is needed: this is the transfer of a strategy from the victim of one attack to that of
    another. A search that gave everything back leaves a strategy that changes nothing, and the
    result says so. The maths is `bdlit.merging.substitute`.

    Attributes:
        strategy: A strategy file, as GMS writes it beside a purified model. A study names it by
            `strategy_from`.

    Reference: Tong et al. 2025, "Cut the Deadwood Out: Backdoor Purification via Guided Module
        Substitution", arXiv:2412.20476, appendix B.12.
    """

    strategy: str = ""

    def apply(self, suspect: Weights, *, others: Sequence[Weights]) -> Defended:
        """Return the suspect with the other model's modules where the strategy says so.

        Raises:
            BdlitError: The file is not a strategy, there is not exactly one other model, or the
                models do not have the modules and layers that it names.
        """
        from bdlit.defenses.gms.strategy import load_strategy
        from bdlit.weights.layers import layer_count

        donor = one_proxy(others, self.name)
        if not self.strategy:
            raise BdlitError(f"{self.name} applies a strategy: name its file as `strategy`")
        strategy = load_strategy(self.strategy)
        if (depth := layer_count(suspect)) != strategy.layers:
            raise BdlitError(
                f"the strategy {self.strategy} is for {strategy.layers} layers, and the suspect "
                f"has {depth}: give the strategy of a model of the same depth"
            )
        return substitute(suspect, donor, strategy.cells)

    @property
    def keeps_head(self) -> bool:
        """Only modules of the layers are taken."""
        return True

    @property
    def keeps_names(self) -> bool:
        """The modules that the strategy names must be there, and fit."""
        return False

    def check(
        self,
        suspect: Weights,
        *,
        others: Sequence[Weights],
        base: Weights | None,
        model_type: str | None,
    ) -> None:
        """Refuse a strategy file that is missing, and a model that modules cannot be taken from."""
        if self.strategy and others:
            self.apply(suspect, others=others)


def one_proxy(others: Sequence[Weights], name: str) -> Weights:
    """Return the one other model.

    Raises:
        BdlitError: There is not exactly one other model.
    """
    if len(others) != 1:
        raise BdlitError(
            f"{name} takes modules from one other model, and was given {len(others)}: give one"
        )
    return others[0]


def substitute(suspect: Weights, donor: Weights, cells: set[LayerModule]) -> Defended:
    """Return the suspect with some modules replaced, and say which tensors changed hands."""
    result = merging.substitute(suspect, donor, cells)
    merged = merging.substituted_names(suspect, cells)
    replaced = set(merged)
    return Defended(
        weights=result,
        merged=merged,
        copied=[name for name in suspect if name not in replaced],
        notes=result.notes,
    )
