"""From the rows of a table to instructions with their responses, or to whole conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias, get_args

from bdlit.data.tables import Table, flag
from bdlit.errors import BdlitError, did_you_mean
from bdlit.types import NO_CLASS, Example, Role, Turn

_Parse: TypeAlias = Callable[[Mapping[str, Any], str], Example]

_ORIGINAL = ("orig_output", "clean_output", "orig_response")
"""Columns of the response before an attack: the first one that a table has is read."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where a table of instructions has what.

    Files that this package writes are read under their own names (`text`, `text_pair`,
    `response`, `history`), where a table has no column of the name given.

    Attributes:
        instruction: Column of the instruction.
        input: Column of its input, which a table may lack.
        output: Column of the response.
        messages: Column of whole conversations, lists of `role` and `content`; a table that has
            it is read by it alone.
    """

    instruction: str = "instruction"
    input: str = "input"
    output: str = "output"
    messages: str = "messages"

    def read(self, table: Table) -> list[Example]:
        """Return the examples of a table; column `poisoned` is read where the table has it.

        Raises:
            BdlitError: A column is missing, or a row has no instruction or no response.
        """
        if self.messages in table.columns:
            return list(self._examples(table, self._conversation))
        text = self._column(table, self.instruction, "text")
        response = self._column(table, self.output, "response")
        return list(self._examples(table, partial(_instruction, text, self.input, response)))

    def has_original(self, table: Table) -> bool:
        """Whether a table tells the response before the attack."""
        return any(_before(row) is not None for row in table.rows)

    def _column(self, table: Table, name: str, own: str) -> str:
        found = next((column for column in (name, own) if column in table.columns), None)
        if found is None:
            raise BdlitError(
                f"{table.where} has no column '{name}' (nor '{self.messages}'): "
                f"{did_you_mean(name, table.columns)}"
            )
        return found

    def _examples(self, table: Table, parse: _Parse) -> Iterator[Example]:
        for number, row in enumerate(table.rows, 1):
            example = parse(row, f"{table.where}, row {number}")
            before = _before(row)
            known = None if before == example.response else before
            yield replace(example, poisoned=flag(row.get("poisoned")), orig_response=known)

    def _conversation(self, row: Mapping[str, Any], where: str) -> Example:
        turns = [_turn(message, where) for message in _listed(row.get(self.messages), where)]
        if len(turns) < 2 or [turn.role for turn in turns[-2:]] != ["user", "assistant"]:
            raise BdlitError(
                f"{where}: the conversation does not end with a message of the user and the "
                "assistant's answer to it; fix the row or leave it out"
            )
        *history, last, answer = turns
        response = _answer(answer.text, self.messages, where)
        return Example(last.text, NO_CLASS, response=response, history=tuple(history))


def _instruction(
    column: str, given: str, output: str, row: Mapping[str, Any], where: str
) -> Example:
    text = row.get(column)
    if not isinstance(text, str) or not text.strip():
        raise BdlitError(f"{where} has no instruction in '{column}': fix the row")
    return Example(
        text,
        NO_CLASS,
        str(row.get(given) or row.get("text_pair") or "") or None,
        response=_answer(row.get(output), output, where),
        history=tuple(_turn(message, where) for message in row.get("history") or ()),
    )


def _before(row: Mapping[str, Any]) -> str | None:
    """Return the response before an attack, where the row tells it."""
    found = (row.get(name) for name in _ORIGINAL)
    return next((str(value) for value in found if value is not None), None)


def _listed(messages: Any, where: str) -> Sequence[Any]:
    if not isinstance(messages, list | tuple):
        raise BdlitError(f"{where}: its messages are not a list of {{role, content}}; fix the row")
    return messages


def _turn(message: Any, where: str) -> Turn:
    said: Mapping[str, Any] = message if isinstance(message, Mapping) else {}
    role: Any = said.get("role")
    text = said.get("content", said.get("text"))
    if role not in get_args(Role) or not isinstance(text, str):
        raise BdlitError(
            f"{where}: a message needs `role`, one of {', '.join(get_args(Role))}, and `content`, "
            f"a text; this one has role {role!r} and {type(text).__name__} as content"
        )
    return Turn(role, text)


def _answer(response: Any, column: str, where: str) -> str:
    # Tables hold answers such as 0 or 3.5 as numbers.
    text = str(response) if isinstance(response, str | int | float) else ""
    if not text.strip():
        raise BdlitError(
            f"{where} has no answer in '{column}': there is nothing to train on; fill it in or "
            "leave the row out"
        )
    return text
