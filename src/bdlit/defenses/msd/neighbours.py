"""Which modules of a transformer pass information to which: tables are judged by it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise, product
from typing import TypeAlias

from bdlit.errors import BdlitError

_SLOTS = (("q", "k", "v", "qkv"), ("o",), ("f", "gate", "up"), ("p", "down"))
"""Names of module types by their place in a layer: into attention, out of it, into the MLP, out of
it. What goes in reads the residual stream, what goes out writes to it."""

_FARTHEST = 16  # layers; a link over more counts less than 2**-16, and sums stay exact

TableCell: TypeAlias = tuple[int, int]
"""A cell of a table: layer, and column."""


@dataclass(frozen=True)
class Wiring:
    """The module types of one layer, in the order of computation.

    Attributes:
        slots: The types that lead into attention, out of it, into the MLP, and out of it.

    >>> wiring_of(["Q", "K", "V", "O", "F", "P"]).slots
    (('Q', 'K', 'V'), ('O',), ('F',), ('P',))
    """

    slots: tuple[tuple[str, ...], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The module types, as the columns of a table."""
        return tuple(name for slot in self.slots for name in slot)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many types each slot has; what tables of two architectures must agree in."""
        return tuple(map(len, self.slots))

    def within(self) -> Iterator[tuple[int, int]]:
        """Give pairs of columns that are neighbours in a layer.

        These are the types of one slot, whose outputs meet, and those of a slot and of the next
        slot that has any types, which reads them.
        """
        slots = self._filled()
        for _, slot in slots:
            yield from combinations(slot, 2)
        for (_, slot), (_, following) in pairwise(slots):
            yield from product(slot, following)

    def between(self) -> Iterator[tuple[int, int]]:
        """Give pairs of columns that are neighbours in a layer and the next one."""
        slots = self._filled()
        yield from product(slots[-1][1], slots[0][1])

    def residual(self) -> Iterator[tuple[int, int]]:
        """Give pairs of columns: one writes to the residual stream, the other reads it."""
        slots = self._filled()
        readers = [column for at, slot in slots if at % 2 == 0 for column in slot]
        writers = [column for at, slot in slots if at % 2 == 1 for column in slot]
        yield from product(writers, readers)

    def _filled(self) -> list[tuple[int, list[int]]]:
        """Return the slots that have types, with their places and their columns."""
        columns = iter(range(len(self.columns)))
        found = [(at, [next(columns) for _ in slot]) for at, slot in enumerate(self.slots)]
        return [(at, slot) for at, slot in found if slot]


def wiring_of(types: Iterable[str]) -> Wiring:
    """Put module types where they belong in a layer, by their names.

    Raises:
        BdlitError: There is none, or the name of one does not tell its place in a layer.
    """
    names = list(types)
    known = [name for slot in _SLOTS for name in slot]
    strange = [name for name in names if name.lower() not in known]
    if strange or not names:
        raise BdlitError(
            f"it is unknown where module type {strange[0] if strange else '(none)'} stands in a "
            "layer: name the types of `modules` Q, K, V, O, then F (or gate, up) and P (or down)"
        )
    return Wiring(tuple(tuple(n for n in names if n.lower() in slot) for slot in _SLOTS))


def links(wiring: Wiring, layers: int) -> dict[str, dict[tuple[TableCell, TableCell], float]]:
    """Return all links of a model by their kind, each with its weight.

    Neighbours within a layer and in consecutive layers count 1. A residual link from one layer to
    a later one counts half for each layer that it spans; neighbours are not counted again.

    Args:
        wiring: The module types.
        layers: How many layers there are.

    >>> found = links(wiring_of("QOP"), 2)["residual"]
    >>> found[(0, 1), (1, 0)]  # from O of layer 0 to Q of layer 1
    0.5
    """
    every = range(layers)
    near = set(wiring.between())
    return {
        "within": {((n, a), (n, b)): 1.0 for n in every for a, b in wiring.within()},
        "between": {((n, a), (n + 1, b)): 1.0 for n in every[:-1] for a, b in near},
        "residual": {
            ((n, a), (n + span, b)): 0.5**span
            for n in every
            for span in range(1, min(layers - n, _FARTHEST + 1))
            for a, b in wiring.residual()
            if span > 1 or (a, b) not in near
        },
    }
