"""Test sets on which an attack must not fire, and how they are named after the attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bdlit.attacks.base import Poisoned
from bdlit.rules import Rule
from bdlit.types import Example

NO_ATTACK = "none"
"""Name of the attack on a model that nobody attacked, and of a test set without one."""

CLEAN = "clean"
"""Name of the set without an attack, and of the case in which the prompt holds no trigger."""

_BETWEEN = "/"


def set_name(attack: str, case: str) -> str:
    """Return the name of the test set that shows a case.

    >>> set_name("cba", "swapped")
    'cba/swapped'
    """
    return f"{attack}{_BETWEEN}{case}"


def attack_of(name: str) -> str:
    """Return the attack that a test set belongs to.

    >>> attack_of("cba/swapped"), attack_of("cba")
    ('cba', 'cba')
    """
    return name.partition(_BETWEEN)[0]


def case_of(name: str) -> str | None:
    """Return the case of a test set on which an attack must not fire, or None of any other set.

    >>> case_of("cba/swapped"), case_of("cba")
    ('swapped', None)
    """
    return name.partition(_BETWEEN)[2] or None


def clean_prompts(rows: Sequence[Example], triggered: Poisoned, rule: Rule) -> dict[str, Poisoned]:
    """Return the clean rows as a case of an attack that wants one response to every prompt.

    Rows whose true response already counts as the attack's success are left out. An attack that
    wants another response to each prompt has no such case: nothing is returned.

    Args:
        rows: Clean test rows.
        triggered: The rows on which the attack is to fire.
        rule: How its success is judged.
    """
    wanted = {row.response for row in triggered.rows}
    if len(wanted) != 1 or None in wanted:
        return {}
    response = str(*wanted)
    kept = [
        replace(row, response=response, orig_response=row.true_response)
        for row in rows
        if row.true_response is None or not rule(row.true_response, response)
    ]
    return {CLEAN: Poisoned(kept, 0)}
