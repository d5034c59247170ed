"""Prompts in files, with named places in braces."""

from __future__ import annotations

from collections.abc import Collection
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Formatter

from bdlit.errors import BdlitError


def read_template(path: Path | Traversable, fields: Collection[str]) -> str:
    """Return the text of a prompt template, to be filled in by `format`.

    Args:
        path: The file.
        fields: The places that it must have, and no others.

    Raises:
        BdlitError: The file cannot be read, or has other places.
    """
    try:
        text = path.read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BdlitError(f"cannot read template {path}: {reason}; check the path") from error
    try:
        found = {field for _, field, _, _ in Formatter().parse(text) if field is not None}
    except ValueError as error:
        raise BdlitError(
            f"template {path} is not valid ({error}): double every brace that marks no field"
        ) from error
    if found != set(fields):
        raise BdlitError(
            f"template {path} has the fields {sorted(found)}: it must have {sorted(fields)}, each "
            "in braces"
        )
    return text
