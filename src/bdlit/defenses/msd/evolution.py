"""An evolutionary search over tables: tournaments, mutations, and the best survive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from bdlit.errors import BdlitError

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    Judge = Callable[[Int[np.ndarray, "tables layers columns"]], Float[np.ndarray, "n"]]

SourceRows: TypeAlias = tuple[tuple[int, ...], ...]
"""A table: for each layer, the source of each column."""


@dataclass(frozen=True)
class Evolution:
    """Settings of a search.

    Attributes:
        generations: How often the tables have children; 0 leaves the best of the random start.
        starts: How many times to begin anew; the best of all counts, and the first of equals.
        population: How many tables live at a time, and how many children they have.
        tournament: How many tables a parent is the best of.
        seed: Seed of the start, the tournaments and the mutations.

    Raises:
        BdlitError: A number is out of range.
    """

    generations: int = 500
    starts: int = 16
    population: int = 64
    tournament: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            *(("generations", 0), ("starts", 1)),
            *(("population", 1), ("tournament", 1)),
        ):
            if getattr(self, name) < least:
                raise BdlitError(
                    f"{name} {getattr(self, name)} is out of range: give at least {least}"
                )


@dataclass(frozen=True)
class Evolved:
    """The best table that was found.

    Attributes:
        rows: For each layer, the source of each column.
        fitness: How good it is.
        started: How good the best of all random starts was.
    """

    rows: SourceRows
    fitness: float
    started: float


def evolve(
    judge: Judge,
    shape: tuple[int, int],
    sources: int,
    settings: Evolution,
    watch: Callable[[int, float], None] = lambda generation, best: None,
) -> Evolved:
    """Search for a table of high fitness.

    In each generation every child is a copy of the best of a few tables drawn at random, with
    some cells changed: each with a chance of one in the number of cells, and one at least. In
    half of the children the sources of a run of layers, or of one column of it, change places
    first: no change of single cells leads out of two good halves that do not fit each other. The
    best of parents and children live on; of two equals the child does, so that the search drifts
    over plateaus. The best table is never lost.

    Args:
        judge: From several tables to the fitness of each.
        shape: Layers and columns of a table.
        sources: How many sources a cell chooses from, at least 2.
        settings: How long and how broadly to search.
        watch: Called with the generations done and the best fitness so far, now and then.

    Raises:
        BdlitError: There are fewer than two sources, or the shape is empty.

    Reference: Li et al. 2025, arXiv:2504.05902.

    >>> ones = lambda tables: tables.sum(axis=(1, 2)).astype(float)
    >>> evolve(ones, (1, 3), 2, Evolution(generations=50, starts=1)).rows
    ((1, 1, 1),)
    """
    if sources < 2 or min(shape) < 1:
        raise BdlitError(
            f"there is no table of {shape[0]} layers and {shape[1]} modules from {sources} models "
            "to search for: give at least one layer, one module and two models"
        )
    found: list[tuple[float, SourceRows]] = []
    started = []
    for start in range(settings.starts):
        rng = np.random.default_rng([settings.seed, start])
        tables = rng.integers(sources, size=(settings.population, *shape))
        values = judge(tables)
        started.append(float(values.max()))
        for generation in range(1, settings.generations + 1):
            tables, values = _next(judge, tables, values, sources, settings.tournament, rng)
            if generation % 100 == 0:
                best = max([float(values[0]), *(value for value, _ in found)])
                watch(start * settings.generations + generation, best)
        first = int(values.argmax())
        rows = tuple(tuple(int(source) for source in row) for row in tables[first])
        found.append((float(values[first]), rows))
    fitness, rows = max(found, key=lambda one: one[0])  # the first of equals
    return Evolved(rows, fitness, max(started))


def _next(
    judge: Judge,
    tables: Int[np.ndarray, "tables layers columns"],
    values: Float[np.ndarray, n],
    sources: int,
    tournament: int,
    rng: np.random.Generator,
) -> tuple[Int[np.ndarray, "tables layers columns"], Float[np.ndarray, n]]:
    """Return the tables of the next generation and their fitness, the best first."""
    size = len(tables)
    drawn = rng.integers(size, size=(size, tournament))
    parents = drawn[np.arange(size), values[drawn].argmax(axis=1)]
    children = _mutated(tables[parents], sources, rng)
    pool = np.concatenate([children, tables])
    worth = np.concatenate([judge(children), values])
    best = np.argsort(-worth, kind="stable")[:size]
    return pool[best], worth[best]


def _mutated(
    tables: Int[np.ndarray, "tables layers columns"], sources: int, rng: np.random.Generator
) -> Int[np.ndarray, "tables layers columns"]:
    """Return copies with some cells moved to another source."""
    count, layers, columns = tables.shape
    cells = layers * columns
    chosen = rng.random((count, cells)) < 1 / cells
    chosen[np.arange(count), rng.integers(cells, size=count)] = True
    steps = (rng.integers(1, sources, size=(count, cells)) * chosen).reshape(tables.shape)
    ends = np.sort(rng.integers(layers + 1, size=(count, 2)), axis=1)
    layer = np.arange(layers)
    run = (layer >= ends[:, :1]) & (layer < ends[:, 1:])
    # Of every four children one moves whole rows of the run, and one a single column of it.
    kind = rng.integers(4, size=count)
    whole, single = kind == 0, kind == 1
    column = np.arange(columns) == rng.integers(columns, size=(count, 1))
    across = whole[:, None] | (single[:, None] & column)
    shift = rng.integers(1, sources, size=(count, 1, 1))
    steps += (run[:, :, None] & across[:, None, :]) * shift
    moved: Int[np.ndarray, "tables layers columns"] = (tables + steps) % sources
    return moved
