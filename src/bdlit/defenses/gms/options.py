"""Choices of a search, by name; importing them does not import torch."""

from __future__ import annotations

from typing import Literal, TypeAlias

Compat: TypeAlias = Literal["encoder", "decoder"]
"""Which of the two published rules to follow; see `bdlit.defenses.gms.greedy.greedy_search`."""

Granularity: TypeAlias = Literal["modules and layers", "modules", "layers", "cells"]
"""What a step may drop: a module type or a layer; one of these only; or one module of one layer."""

Precision: TypeAlias = Literal["fp32", "bf16"]
"""Precision of a search's forward passes."""
