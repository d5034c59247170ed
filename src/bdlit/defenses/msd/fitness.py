"""How well a table of sources breaks up what one model has learned: read off the table alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bdlit.defenses.msd.neighbours import Wiring, links

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from bdlit.defenses.msd.neighbours import TableCell


class Fitness:
    """Scores tables of sources; higher is better.

    `- within - between - residual - imbalance + diversity`, all of weight 1. The first three are
    the links (see `bdlit.defenses.msd.neighbours.links`) whose two ends come from one source. The
    imbalance is the cells of the most used source less those of the least used; the diversity is
    the number of different rows. All are sums of powers of 2, so scores are exact, and a tie is a
    tie.

    Args:
        wiring: The module types.
        layers: How many layers a table has.
        sources: How many models it chooses from.

    Reference: Li et al. 2025, "Defending against Backdoor Attacks via Module Switching",
        arXiv:2504.05902.
    Deviation: The paper's terms are named in words in our text of it; which modules are
        neighbours, the halving per layer, the imbalance and the diversity are our reading.
    """

    def __init__(self, wiring: Wiring, layers: int, sources: int) -> None:
        self.shape = (layers, len(wiring.columns))
        self.sources = sources
        self._links = {
            kind: _matrix(weights, self.shape) for kind, weights in links(wiring, layers).items()
        }
        self._all: Float[np.ndarray, "cells cells"] = np.sum(list(self._links.values()), axis=0)

    def __call__(self, tables: Int[np.ndarray, "tables layers columns"]) -> Float[np.ndarray, n]:
        """Return the fitness of each of several tables."""
        here = self._by_source(tables)
        whole: Float[np.ndarray, n] = (
            _diversity(tables, self.sources) - _imbalance(here) - _of_one(here, self._all)
        )
        return whole

    def of(self, rows: Sequence[Sequence[int]]) -> float:
        """Return the fitness of one table."""
        return float(self(np.asarray([rows]))[0])

    def terms(self, rows: Sequence[Sequence[int]]) -> dict[str, float]:
        """Return what the fitness of a table is made of, by name."""
        one = np.asarray([rows])
        here = self._by_source(one)
        return {
            **{kind: float(_of_one(here, weights)[0]) for kind, weights in self._links.items()},
            "imbalance": float(_imbalance(here)[0]),
            "diversity": float(_diversity(one, self.sources)[0]),
        }

    def _by_source(
        self, tables: Int[np.ndarray, "tables layers columns"]
    ) -> Float[np.ndarray, "sources tables cells"]:
        """Return for each source which cells are its own."""
        flat = tables.reshape(len(tables), -1)
        own: Float[np.ndarray, "sources tables cells"] = (
            flat == np.arange(self.sources)[:, None, None]
        ).astype(np.float64)
        return own


def _of_one(
    here: Float[np.ndarray, "sources tables cells"], weights: Float[np.ndarray, "cells cells"]
) -> Float[np.ndarray, n]:
    """Return the weight of the links whose ends come from one source."""
    found: Float[np.ndarray, n] = ((here @ weights) * here).sum(axis=(0, 2))
    return found


def _imbalance(here: Float[np.ndarray, "sources tables cells"]) -> Float[np.ndarray, n]:
    used = here.sum(axis=2)
    unequal: Float[np.ndarray, n] = used.max(axis=0) - used.min(axis=0)
    return unequal


def _diversity(
    tables: Int[np.ndarray, "tables layers columns"], sources: int
) -> Float[np.ndarray, n]:
    digits = sources ** np.arange(tables.shape[2])
    codes = np.sort(tables @ digits, axis=1)
    different: Float[np.ndarray, n] = 1.0 + (np.diff(codes, axis=1) != 0).sum(axis=1)
    return different


def _matrix(
    weights: Mapping[tuple[TableCell, TableCell], float], shape: tuple[int, int]
) -> Float[np.ndarray, "n n"]:
    """Return the weights of links between cells, the cells counted row by row."""
    matrix = np.zeros((shape[0] * shape[1],) * 2)
    for (first, second), weight in weights.items():
        matrix[first[0] * shape[1] + first[1], second[0] * shape[1] + second[1]] = weight
    return matrix
