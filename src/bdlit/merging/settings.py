"""Ranges of the settings that merges share; needs no torch, so that defenses can check early."""

from __future__ import annotations

from math import isfinite
from typing import Literal, TypeAlias, get_args

from bdlit.errors import BdlitError, did_you_mean

Trim: TypeAlias = Literal["model", "tensor"]
"""Where the largest entries are searched: in the whole task vector, or in each tensor alone."""

TrimCount: TypeAlias = Literal["exact", "published"]
"""How many entries a density is: the rounded product with their number, or, as in TIES's published
code, its whole part and one more."""

ZeroSum: TypeAlias = Literal["majority", "positive"]
"""Sign elected where the models cancel exactly: that of most entries of the model, or +."""

Floored: TypeAlias = Literal["all", "first"]
"""Whose Fisher information has a least value: all models', or the first model's alone."""

DareMerge: TypeAlias = Literal["linear", "ties"]
"""How dropped and rescaled task vectors are merged."""


def require_density(density: float) -> None:
    """Refuse a share of kept entries outside (0, 1].

    >>> require_density(20)
    Traceback (most recent call last):
    bdlit.errors.BdlitError: density 20 is out of range: give the share of entries kept, in (0, 1]
    """
    if not 0 < density <= 1:
        raise BdlitError(
            f"density {density} is out of range: give the share of entries kept, in (0, 1]"
        )


def require_drop(drop: float) -> None:
    """Refuse a share of dropped entries outside [0, 1)."""
    if not 0 <= drop < 1:
        raise BdlitError(
            f"drop {drop} is out of range: give the share of entries dropped, in [0, 1)"
        )


def require_share(setting: str, share: float) -> None:
    """Refuse a share of one of two models outside [0, 1].

    >>> require_share("t", 1.5)
    Traceback (most recent call last):
    bdlit.errors.BdlitError: t 1.5 is out of range: give the share of the other model, in [0, 1]
    """
    if not 0 <= share <= 1:
        raise BdlitError(
            f"{setting} {share} is out of range: give the share of the other model, in [0, 1]"
        )


def require_scale(scale: float) -> None:
    """Refuse a factor on the merged task vector that is not finite."""
    if not isfinite(scale):
        raise BdlitError(f"scale {scale} is out of range: give a finite number")


def require_choice(setting: str, value: object, choices: object) -> None:
    """Refuse a value that the `Literal` does not name.

    >>> require_choice("trim", "modle", Trim)
    Traceback (most recent call last):
    bdlit.errors.BdlitError: unknown trim 'modle': did you mean 'model'?
    """
    options = get_args(choices)
    if value not in options:
        raise BdlitError(f"unknown {setting} {value!r}: {did_you_mean(str(value), options)}")
