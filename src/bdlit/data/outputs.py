"""What is looked at in the responses of language models, beside whether they count."""

from __future__ import annotations

from dataclasses import dataclass

from bdlit.errors import BdlitError


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a measurement keeps and computes of the responses; no matter where classes are read off.

    Attributes:
        samples: Prompts of each test set that are kept with their responses, for people to read.
            The data's seed draws them: they are the same ones before and after a defense.
    """

    samples: int = 8

    def __post_init__(self) -> None:
        if self.samples < 0:
            raise BdlitError(f"outputs.samples {self.samples} is out of range: give 0 or more")
