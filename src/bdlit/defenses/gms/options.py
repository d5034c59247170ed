"""Choices of a search, by name; importing them does not import torch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Literal, TypeAlias

from bdlit.types import Precision

Compat: TypeAlias = Literal["encoder", "decoder"]
"""Which of the two published rules to follow; see `bdlit.defenses.gms.greedy.greedy_search`."""

Granularity: TypeAlias = Literal["modules and layers", "modules", "layers", "cells"]
"""What a step may drop: a module type or a layer; one of these only; or one module of one layer."""

FormerPrecision: TypeAlias = Literal["fp32", "bf16"]
"""What GMS called the precisions before it took Lightning's words."""

_RENAMED: Mapping[str, Precision] = {"fp32": "32-true", "bf16": "bf16-mixed"}


def current_precision(precision: Precision | FormerPrecision) -> Precision:
    """Return a precision by its present name, and warn if it was given by its former one.

    >>> current_precision("bf16-mixed")
    'bf16-mixed'
    """
    if precision != "fp32" and precision != "bf16":
        return precision
    renamed = _RENAMED[precision]
    warnings.warn(
        f"GMS precision '{precision}' is now called '{renamed}'", UserWarning, stacklevel=2
    )
    return renamed
