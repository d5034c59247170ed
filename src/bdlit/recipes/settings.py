"""Values of parameters: one number, one for each layer on a gradient, or one for each filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from reprlib import Repr
from typing import Any, TypeAlias

from bdlit.errors import BdlitError

Number: TypeAlias = float | bool

_BRIEF = Repr()
_BRIEF.maxlevel, _BRIEF.maxlist, _BRIEF.maxstring = 2, 4, 60


def shown(content: Any) -> str:
    """Return one short line for a message: a file may hold much, by references to references.

    >>> shown([[[1]], 2])
    '[[[...]], 2]'
    """
    return _BRIEF.repr(content)


@dataclass(frozen=True)
class Case:
    """A value for the tensors whose names hold a text.

    Attributes:
        values: One number for all layers, or numbers at even distances from the first layer of a
            slice to its last, with straight lines between them.
        filter: Part of the names it is for; None is for all.
    """

    values: tuple[Number, ...]
    filter: str | None = None

    def suits(self, name: str) -> bool:
        """Return whether the value is for a tensor of this name."""
        return self.filter in (None, "*") or str(self.filter) in name

    def at(self, position: float) -> Number:
        """Return the value at a position from 0, the first layer, to 1, the last."""
        place = position * (len(self.values) - 1)
        left = int(place)
        if isinstance(self.values[0], bool):
            return self.values[left]  # no line leads from yes to no
        right = min(left + 1, len(self.values) - 1)
        share = place - left
        return (1 - share) * self.values[left] + share * self.values[right]


Setting: TypeAlias = tuple[Case, ...]
"""Cases in order: the first whose filter suits a tensor gives its value."""


def value_of(setting: Setting, name: str, position: float) -> Number | None:
    """Return the value for a tensor of a layer, or None if no filter suits its name.

    >>> setting = setting_from([{"filter": "mlp", "value": [0, 1]}, {"value": 0.5}])
    >>> value_of(setting, "h.1.mlp.weight", 0.25), value_of(setting, "h.1.attn.weight", 0.25)
    (0.25, 0.5)
    """
    return next((case.at(position) for case in setting if case.suits(name)), None)


def setting_from(content: Any, *, flag: bool = False) -> Setting:
    """Return a setting from what YAML holds: a value, a list, a case or a list of cases.

    Args:
        content: A number (a text of one, such as `1e-3`, counts), a list of numbers, a mapping of
            `value` and perhaps `filter`, or a list of those.
        flag: Whether the values are true or false.

    Raises:
        BdlitError: It is none of these; the message says what is wrong, not where.

    >>> setting_from([0, 0.5, 1])
    (Case(values=(0.0, 0.5, 1.0), filter=None),)
    """
    items = content if isinstance(content, list) else [content]
    if not items:
        return ()
    if all(isinstance(item, Mapping) for item in items):
        return tuple(_case(item, flag) for item in items)
    return (Case(_values(content, flag)),)


def _case(content: Mapping[str, Any], flag: bool) -> Case:
    strange = set(content) - {"filter", "value"}
    text = content.get("filter")
    if strange or "value" not in content or not (text is None or isinstance(text, str)):
        raise BdlitError(
            f"{shown(dict(content))} is not a case: give {{filter: part of a name, value: ...}}"
        )
    return Case(_values(content["value"], flag), text)


def _values(content: Any, flag: bool) -> tuple[Number, ...]:
    items = content if isinstance(content, list) else [content]
    values = tuple((_flag if flag else _number)(item) for item in items)
    if not values:
        raise BdlitError("an empty list is not a value: give a number or a list of numbers")
    return values


def _flag(item: Any) -> bool:
    if not isinstance(item, bool):
        raise BdlitError(f"{shown(item)} is neither true nor false")
    return item


def _number(item: Any) -> float:
    try:
        number = float(item)  # YAML reads 1e-3 as a text
    except (TypeError, ValueError):
        number = float("nan")
    if not isfinite(number):
        raise BdlitError(
            f"{shown(item)} is not a number: give a number, or a list of them for a gradient"
        )
    return number
