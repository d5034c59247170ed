"""The work of a study as an ordered list of cells, made and checked before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from bdlit.errors import BdlitError
from bdlit.study.plan import START, Plan

Kind: TypeAlias = Literal["fit", "measure", "defend"]


@dataclass(frozen=True)
class Cell:
    """One piece of work, done once.

    Attributes:
        kind: A model is trained (`fit`), measured as it is (`measure`), or purified and measured
            (`defend`).
        model: Name of the model.
        seed: Seed of its training.
        defense: Name of the treatment, of a `defend` cell.
    """

    kind: Kind
    model: str
    seed: int
    defense: str | None = None

    def __str__(self) -> str:
        by = f" by {self.defense}" if self.defense else ""
        return f"{self.kind} {self.model}{by}, seed {self.seed}"


def cells(plan: Plan) -> list[Cell]:
    """Return all cells of a study, each after those that it needs.

    Raises:
        BdlitError: A cell needs itself, by way of others.
    """
    wanted = [Cell("fit", name, seed) for name, seed in pairs(plan)]
    for name, seed in pairs(plan):
        if name != START:
            wanted += own_cells(plan, name, seed)
    return in_order(wanted, lambda cell: needs(plan, cell))


def pairs(plan: Plan) -> Iterator[tuple[str, int]]:
    """Yield every model with each of its seeds, the common start first."""
    for seed in plan.seeds:
        if plan.start is not None:
            yield START, seed
        for name in plan.models:
            yield name, seed


def own_cells(plan: Plan, name: str, seed: int) -> list[Cell]:
    """Return the cells that measure one model, and what defenses make of it."""
    treatments = plan.defenses if name in plan.suspect_names else ()
    return [
        Cell("measure", name, seed),
        *(Cell("defend", name, seed, treatment) for treatment in treatments),
    ]


def needs(plan: Plan, cell: Cell) -> list[Cell]:
    """Return the cells that must be done before a cell."""
    match cell.kind:
        case "fit":
            return list(_of_fit(plan, cell))
        case "measure":
            found = [Cell("fit", cell.model, cell.seed)]
            found += [Cell("fit", name, cell.seed) for name in plan.learning]
            if plan.floor is not None and plan.floor != cell.model:
                found.append(Cell("measure", plan.floor, cell.seed))
            return found
        case "defend":
            return list(_of_defense(plan, cell))


def _of_fit(plan: Plan, cell: Cell) -> Iterator[Cell]:
    if cell.model == START:
        return
    tuned = plan.models[cell.model].tuned_from
    if isinstance(tuned, str):
        yield Cell("fit", tuned, cell.seed)
    elif tuned is not None:
        yield Cell("defend", tuned[0], cell.seed, tuned[1])
    elif plan.start is not None:
        yield Cell("fit", START, cell.seed)


def _of_defense(plan: Plan, cell: Cell) -> Iterator[Cell]:
    assert cell.defense is not None
    yield Cell("measure", cell.model, cell.seed)
    treatment = plan.defenses[cell.defense]
    for name in plan.others_of(cell.defense, cell.model):
        if name != START or plan.start is not None:
            yield Cell("fit", name, cell.seed)
    if {"base", "train"} & set(treatment.defense.uses) and plan.start is not None:
        yield Cell("fit", START, cell.seed)
    if treatment.strategy_from is not None:
        model, found = treatment.strategy_from
        yield Cell("defend", model, cell.seed, found)


def in_order(wanted: Iterable[Cell], needed: Callable[[Cell], Sequence[Cell]]) -> list[Cell]:
    """Return cells with all that they need, each after what it needs, once.

    Raises:
        BdlitError: A cell needs itself, by way of others.

    >>> a, b = Cell("fit", "a", 0), Cell("fit", "b", 0)
    >>> [cell.model for cell in in_order([a, b], lambda cell: [b] if cell == a else [])]
    ['b', 'a']
    """
    done: dict[Cell, None] = {}

    def visit(cell: Cell, above: tuple[Cell, ...]) -> None:
        if cell in done:
            return
        if cell in above:
            round_trip = " needs ".join(map(str, [*above[above.index(cell) :], cell]))
            raise BdlitError(f"the study goes round in a circle: {round_trip}")
        for each in needed(cell):
            visit(each, (*above, cell))
        done[cell] = None

    for cell in wanted:
        visit(cell, ())
    return list(done)
