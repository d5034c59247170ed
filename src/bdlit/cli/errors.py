"""jsonargparse's errors as one line that says what, where, and how to mend it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from jsonargparse import ArgumentError

from bdlit.errors import BdlitError, did_you_mean


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn errors of the parser into `BdlitError`, with the nearest valid name."""
    try:
        yield
    except ArgumentError as error:
        raise BdlitError(explain(str(error))) from error


def explain(message: str) -> str:
    """Return the one line that matters of a parser's message.

    A class that cannot be built from its settings is reported once per type that was tried,
    innermost last: the last lines know what is wrong.
    """
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    return " ".join(lines)
