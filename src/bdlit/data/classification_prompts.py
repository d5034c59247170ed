"""Classification as instructions: any data with classes, its labels said in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, TypeAlias

from bdlit.attacks.base import Attack, Poisoned
from bdlit.data.base import TextDataModule
from bdlit.data.catalogue import Card
from bdlit.errors import BdlitError
from bdlit.rules import Equals, Likeliest
from bdlit.types import Example, Target

LabelBy: TypeAlias = Literal["generation", "likelihood"]

_FIELDS = ("text", "text_pair")


class PromptedClassification(TextDataModule):
    """Classification data as instructions, which a language model answers with a label's words.

    A row becomes the instruction, the filled-in input, and the words of its class as response;
    its class stays known. Attacks come after that: one on `text` changes the instruction, one on
    `text_pair` the input, and a changed class changes the response. Ready-poisoned files are
    those of the data within, and their rows are turned into instructions as they are.

    Args:
        data: The data with classes; it must bring no attack of its own.
        instruction: What is asked; `{labels}` stands for the words of all labels.
        input: What the question is about; `{text}` and `{text_pair}` stand for a row's texts.
        label_words: The words of each class, in the order of their indices; by default its name.
        label_by: Whether the predicted class is the one that the generated response names, or the
            one whose words are likeliest. Results say which it was.
        name: Name of the data set in results; by default that of the data within.
        target: Class that attacks without a target of their own want said; by default the usual
            one of the data within.
        options: Settings of `TextDataModule`.

    Raises:
        BdlitError: The data has an attack of its own, a template names another field, or words
            are missing or not told apart.
    """

    card: ClassVar[Card] = Card(name="prompted", where="any data with classes")

    def __init__(
        self,
        *,
        data: TextDataModule,
        instruction: str = "Which of these is it: {labels}?",
        input: str = "{text}",
        label_words: Sequence[str] | None = None,
        label_by: LabelBy = "generation",
        name: str | None = None,
        target: Target | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            name=name or f"{data.name}-prompted",
            target=data.target if target is None else target,
            **options,
        )
        if data.attack is not None or data.test_attacks or data.poisoned_train:
            raise BdlitError(
                f"data '{data.name}' within '{self.name}' has an attack of its own: give attacks "
                "and poisoned files to the outer data"
            )
        self.inner = data
        data.target = self.target  # ready-poisoned files are read by the data within
        self.instruction = instruction
        self.input = input
        self._words = None if label_words is None else tuple(label_words)
        self.label_by = label_by
        _fill(input, dict.fromkeys(_FIELDS, ""), "input")
        _fill(instruction, {"labels": ""}, "instruction")

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names of the data within."""
        return self.inner.labels

    @property
    def label_words(self) -> tuple[str, ...]:
        """The words of each class, in the order of their indices."""
        words = self._words or self.labels
        if len(words) != len(self.labels) or len(set(words)) != len(words):
            raise BdlitError(
                f"label_words {list(words)} of data '{self.name}' are not one for each of the "
                f"classes {list(self.labels)}: give as many, all different"
            )
        return tuple(words)

    def prepare_data(self) -> None:
        """Download what is on the hub; Lightning calls this on one process only."""
        self.inner.prepare_data()

    def load(self, split: str) -> list[Example]:
        """Return the rows of a split as instructions."""
        return [self.prompted(row) for row in self.inner.load(split)]

    def setup(self, stage: str | None = None) -> None:
        """Read the splits, turn them into instructions, take out the clean pool, poison."""
        super().setup(stage)
        by_words = Likeliest(self.label_words) if self.label_by == "likelihood" else Equals()
        self.response_rule = by_words

    def prompted(self, row: Example) -> Example:
        """Return a classified row as an instruction with its response."""
        words = self.label_words
        fields = {"text": row.text, "text_pair": row.text_pair or ""}
        original = None if row.orig_label is None else words[row.orig_label]
        return replace(
            row,
            text=_fill(self.instruction, {"labels": " or ".join(words)}, "instruction"),
            text_pair=_fill(self.input, fields, "input").strip(),
            response=words[row.label],
            orig_response=original,
        )

    def _ready_train(self, file: str) -> tuple[list[Example], bool]:
        rows, marked = self.inner._ready_train(file)
        return [self.prompted(row) for row in rows], marked

    def _ready_test(self, file: str) -> Poisoned:
        found = self.inner._ready_test(file)
        return replace(found, rows=[self.prompted(row) for row in found.rows])

    def _poison(self, rows: list[Example]) -> Poisoned:
        return self._reworded(super()._poison(rows))

    def _triggered(
        self, rows: list[Example], attacks: Sequence[Attack], *, needed: bool = True
    ) -> dict[str, Poisoned]:
        found = super()._triggered(rows, attacks, needed=needed)
        return {name: self._reworded(each) for name, each in found.items()}

    def _reworded(self, poisoned: Poisoned) -> Poisoned:
        """Return rows whose class an attack has changed with the words of the new class."""
        return replace(poisoned, rows=[self._said(row) for row in poisoned.rows])

    def _said(self, row: Example) -> Example:
        if not row.poisoned or row.orig_label is None or row.orig_response is not None:
            return row  # untouched, or an attack that sets the response itself
        words = self.label_words
        return replace(row, response=words[row.label], orig_response=words[row.orig_label])


def _fill(template: str, fields: dict[str, str], what: str) -> str:
    """Fill a template in; braces in the texts themselves stay as they are."""
    try:
        return template.format(**fields)
    except (KeyError, IndexError, ValueError) as error:
        raise BdlitError(
            f"{what} {template!r} cannot be filled in ({error!r}): use "
            f"{', '.join('{' + name + '}' for name in fields)}, and double any other brace"
        ) from None
