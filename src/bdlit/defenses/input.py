"""Defenses that change what goes into a model and leave the model as it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bdlit.llm import Answerer
from bdlit.types import Example


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """What an input defense returned.

    Attributes:
        rows: The rows to give to the model, in the order of those that came in.
        notes: What the method has to say of this run, ready for JSON.
    """

    rows: list[Example]
    notes: Mapping[str, Any] = field(default_factory=dict)


class InputDefense(ABC):
    """A defense of the inputs: settings in the constructor, rows in, rows out.

    It may change the texts of a row and nothing else: labels, responses and marks are what the
    rows are measured by, and it must not read them.
    """

    @property
    def name(self) -> str:
        """Name in logs and results."""
        return type(self).__name__

    @abstractmethod
    def clean(self, rows: Sequence[Example], *, victim: Answerer | None = None) -> Cleaned:
        """Return the rows with harmless texts.

        Args:
            rows: Rows that may hold a trigger.
            victim: The suspect model, asked with prompts as texts; None where it cannot be asked.
        """
