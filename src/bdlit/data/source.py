"""Where the splits of a data set are: in a repository on the hub, or in local files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bdlit.data.catalogue import Card
from bdlit.data.files import STEMS, find_file, find_split
from bdlit.data.saved_sets import saved_split
from bdlit.data.tables import Table
from bdlit.errors import BdlitError, did_you_mean
from bdlit.tables import read_sliced, sliced


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a data set is; the kinds that do not apply are None or empty.

    Attributes:
        hub_id: Repository on the hub.
        subset: Configuration of the repository.
        revision: Commit, tag or branch of the repository.
        splits: Split to the repository's name for it.
        folder: Folder of local files.
        files: Split to a local file; wins over the repository and the folder.
        quoting: Whether `"` encloses values of CSV and TSV files; see `bdlit.tables.read_rows`.
    """

    hub_id: str | None = None
    subset: str | None = None
    revision: str | None = None
    splits: Mapping[str, str]
    folder: Path | None = None
    files: Mapping[str, str]
    quoting: bool | None = None

    @classmethod
    def of(
        cls,
        card: Card,
        source: str | None,
        *,
        subset: str | None = None,
        revision: str | None = None,
        splits: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        quoting: bool | None = None,
    ) -> Self:
        """Return the place that a user's settings and a data set's card make together.

        Raises:
            BdlitError: A folder or a named split does not exist.
        """
        for name in [*(splits or ()), *(files or ())]:
            if name not in STEMS:
                raise BdlitError(f"unknown split '{name}': {did_you_mean(name, STEMS)}")
        folder = None if source is None else Path(source).expanduser()
        if folder is not None and folder.is_dir():
            return cls(folder=folder, splits={}, files=files or {}, quoting=quoting)
        if source is not None and _is_path(source):
            raise BdlitError(f"no folder '{source}': give a folder of files, or a hub id")
        if source is None and files:
            return cls(splits={}, files=files, quoting=quoting)
        own = source is None or source == card.hub_id
        return cls(
            hub_id=source or card.hub_id,
            subset=subset or (card.subset if own else None),
            # The commit of one repository means nothing in another.
            revision=revision or (card.revision if own else None),
            splits=splits or (card.splits if own else {name: name for name in STEMS}),
            files=files or {},
            quoting=quoting,
        )

    def split(self, split: str) -> Table | None:
        """Return a split, or None if the data set has no such split.

        Raises:
            BdlitError: It cannot be read.
        """
        if split in self.files:
            return self.file(self.files[split])
        if self.folder is not None:
            path = find_split(self.folder, split)
            if path is None:
                return saved_split(self.folder, split)
            return local_table(path, quoting=self.quoting)
        if self.hub_id is not None and split in self.splits:
            from bdlit.data.hub import read_hub_split

            return read_hub_split(
                self.hub_id, self.splits[split], subset=self.subset, revision=self.revision
            )
        return None

    def file(self, name: str) -> Table:
        """Return a local file, looked for in the folder, then in the working directory.

        A slice behind its name takes a part of it: `train.jsonl[:1000]`.

        Raises:
            BdlitError: It does not exist or cannot be read.
        """
        file, _ = sliced(name)
        found = f"{find_file(file, self.folder)}{name.removeprefix(file)}"
        return local_table(found, quoting=self.quoting)

    def download(self) -> None:
        """Get what is on the hub into the local cache."""
        if self.hub_id is not None:
            for split in self.splits:
                self.split(split)

    def __str__(self) -> str:
        if self.folder is not None:
            return f"folder {self.folder}"
        return f"'{self.hub_id}' on the hub" if self.hub_id else "the files given"


def _is_path(source: str) -> bool:
    """Return whether a source is written as a path, so that it cannot be a hub id."""
    return source.startswith((".", "~")) or source.count("/") > 1 or Path(source).is_absolute()


def local_table(path: str | Path, *, quoting: bool | None = None) -> Table:
    """Return a local file, or a slice of it, as a table.

    Args:
        path: The file, with a slice or without.
        quoting: See `bdlit.tables.read_rows`.

    Raises:
        BdlitError: It cannot be read.
    """
    rows = read_sliced(str(path), quoting=quoting)
    return Table(where=str(path), columns=list(rows[0]), rows=rows)
