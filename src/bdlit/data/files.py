"""Splits of a data set in a folder of local files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bdlit.errors import BdlitError, did_you_mean
from bdlit.tables import SUFFIXES

STEMS = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
"""How a file of each split may be called, with or without `_clean` at the end."""


def find_split(folder: Path, split: str) -> Path | None:
    """Return the file of a split in a folder, or None if it has none.

    Raises:
        BdlitError: Several files could be meant.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("train_clean.jsonl.gz", "train_badnet.jsonl.gz", "dev.tsv"):
    ...     (folder / name).touch()
    >>> [getattr(find_split(folder, split), "name", None) for split in STEMS]
    ['train_clean.jsonl.gz', 'dev.tsv', None]
    """
    stems = {stem + end for stem in STEMS[split] for end in ("", "_clean")}
    return _only(
        [path for path in _tables(folder) if table_name(path) in stems], folder, f"'{split}'"
    )


def find_file(name: str, folder: Path | None) -> Path:
    """Return the file meant by `name`, in the folder or else in the working directory.

    The ending may be left out: `train_badnet` finds `train_badnet.jsonl.gz`.

    Raises:
        BdlitError: The file does not exist, or several files match.
    """
    places = [place for place in (folder, Path()) if place is not None]
    for place in places:
        path = place / Path(name).expanduser()
        if path.is_file():
            return path
        if path.parent.is_dir():
            same = [other for other in _tables(path.parent) if table_name(other) == path.name]
            if found := _only(same, path.parent, f"'{name}'"):
                return found
    near = [path.name for path in _tables(places[0])]
    hint = did_you_mean(name, near) if near else "give its path"
    raise BdlitError(
        f"no file '{name}' in {' or '.join(str(p.absolute()) for p in places)}: {hint}"
    )


def table_name(path: Path) -> str:
    """Return a file's name without the ending of a table; the whole name of any other file.

    >>> table_name(Path("sst2/train_badnet.jsonl.gz"))
    'train_badnet'
    """
    name = path.name.removesuffix(".gz")
    return next((name.removesuffix(end) for end in SUFFIXES if name.endswith(end)), path.name)


def _tables(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if table_name(path) != path.name)


def _only(paths: list[Path], folder: Path, what: str) -> Path | None:
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        raise BdlitError(
            f"several files in {folder} could be {what}: {names}; name the one you mean in `files`"
        )
    return paths[0] if paths else None
