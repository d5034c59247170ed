"""The one error that is the user's to mend, and the words that help to mend it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class BdlitError(Exception):
    """Bad input, told in one line: what is wrong, where, and how to mend it.

    The command line prints the message without a traceback and exits with code 2.
    """


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return the end of an error line: the nearest valid name, or all of them.

    >>> did_you_mean("BadNt", ["BadNet", "InsertSent"])
    "did you mean 'BadNet'?"
    >>> did_you_mean("xyz", ["cf", "mn"])
    'choose from: cf, mn'
    """
    options = sorted(choices)
    by_lower_case = {option.lower(): option for option in options}
    near = get_close_matches(name.lower(), by_lower_case, n=1)
    if near:
        return f"did you mean '{by_lower_case[near[0]]}'?"
    return f"choose from: {', '.join(options)}"
