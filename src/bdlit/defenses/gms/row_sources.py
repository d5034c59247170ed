"""Where the rows of GMS's suspect set and clean set come from, by name, or from a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bdlit.errors import BdlitError, did_you_mean
from bdlit.tables import SUFFIXES

if TYPE_CHECKING:
    from bdlit.defenses.gms.proxy_rows import Ranking

RANKINGS: tuple[Ranking, ...] = (
    "inverse",
    "confidence",
    "variability",
    "published-confidence",
)
DISAGREEMENT = "disagreement"
ORACLE = "oracle"
TRAIN = "train"
POOL = "pool"

SUSPECT_SOURCES = (*RANKINGS, DISAGREEMENT, ORACLE)
CLEAN_SOURCES = (TRAIN, POOL, ORACLE)


def is_file(source: str) -> bool:
    """Whether a source names a file of rows.

    >>> is_file("rows.jsonl.gz"), is_file("oracle")
    (True, False)
    """
    return source.removesuffix(".gz").endswith(SUFFIXES)


def require_source(setting: str, source: str, known: Sequence[str]) -> None:
    """Refuse an unknown source.

    Raises:
        BdlitError: It is neither among the known ones nor a file that is there.
    """
    if is_file(source):
        if not Path(source).is_file():
            raise BdlitError(f"{setting}: no file '{source}' in {Path.cwd()}: give its path")
    elif source not in known:
        raise BdlitError(
            f"{setting} '{source}' is neither a way to choose rows nor a file: "
            f"{did_you_mean(source, known)}"
        )
