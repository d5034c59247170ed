"""What can be asked: it takes prompts and gives one answer for each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from bdlit.errors import BdlitError
from bdlit.progress import progress

Answerer: TypeAlias = Callable[[Sequence[str]], list[str]]
"""Takes prompts, returns one answer for each, in their order."""


class LLM(ABC):
    """A language model to ask, with what its answers depend on.

    An answer is a function of (identity, prompt): the same prompt gets the same answer, whatever
    is asked beside it.
    """

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """The name of the model and the settings that answers depend on, ready for JSON."""

    @abstractmethod
    def answers(self, prompts: Sequence[str]) -> Iterator[tuple[int, str]]:
        """Yield the place of a prompt and its answer, as answers come, in any order."""

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """Return one answer for each prompt, in their order; equal prompts are asked once.

        Raises:
            BdlitError: The model cannot be asked, or left a prompt without an answer.
        """
        asked = list(dict.fromkeys(prompts))
        found: dict[str, str] = {}
        with progress(f"asking {self.identity.get('model', 'the model')}") as tell:
            for place, answer in self.answers(asked):
                found[asked[place]] = answer
                tell(len(found), len(asked))
        if len(found) < len(asked):
            raise BdlitError(
                f"{self.identity.get('model', 'the model')} left {len(asked) - len(found)} of "
                f"{len(asked)} prompts without an answer: ask again"
            )
        return [found[prompt] for prompt in prompts]


@dataclass(frozen=True)
class FunctionLLM(LLM):
    """Any function from prompts to answers, under a name.

    Attributes:
        function: Takes prompts, returns one answer for each, in their order.
        name: Name of the model, by which its answers are told from those of others.

    >>> FunctionLLM(lambda prompts: [text.upper() for text in prompts], "upper")(["a", "b", "a"])
    ['A', 'B', 'A']
    """

    function: Answerer
    name: str

    @property
    def identity(self) -> Mapping[str, Any]:
        """The name."""
        return {"model": self.name}

    def answers(self, prompts: Sequence[str]) -> Iterator[tuple[int, str]]:
        """Yield what the function returns."""
        yield from enumerate(self.function(prompts))
