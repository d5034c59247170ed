"""Folders of data as the `datasets` library writes them, or as the hub has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bdlit.data.files import STEMS, find_split, table_name
from bdlit.data.tables import Table
from bdlit.errors import BdlitError
from bdlit.tables import read_rows

_DICT = "dataset_dict.json"
_ONE = "dataset_info.json"
_SHARD = re.compile(r"(?P<split>\w+)-(?P<number>\d{5})-of-(?P<count>\d{5})")


def saved_split(folder: Path, split: str) -> Table | None:
    """Return a split of a folder that holds no plain table of that name.

    That is a folder of `DatasetDict.save_to_disk`; or one of shards, such as
    `train-00000-of-00002.parquet`, or of tables below `data/`, as repositories of the hub are.

    Args:
        folder: The folder.
        split: Name of the split.

    Returns:
        The split, or None if the folder has no such.

    Raises:
        BdlitError: The folder is damaged, lacks a shard, or holds one data set without splits.
    """
    if (folder / _DICT).is_file():
        found = [folder / name for name in STEMS[split] if (folder / name / _ONE).is_file()]
        return _from_disk(found[0]) if found else None
    if (folder / _ONE).is_file() and (folder / "state.json").is_file():
        raise BdlitError(
            f"{folder} is one data set without splits: save a DatasetDict with train and test"
        )
    for place in (folder, folder / "data"):
        if place.is_dir() and (found := _shards(place, split)):
            return _table(place, found)
    plain = find_split(folder / "data", split) if (folder / "data").is_dir() else None
    return _table(folder / "data", [plain]) if plain else None


def _from_disk(folder: Path) -> Table:
    from datasets import load_from_disk

    try:
        dataset = load_from_disk(str(folder))
    except Exception as error:  # the library raises errors of many kinds on a damaged folder
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise BdlitError(f"cannot read {folder}: {reason}; save it again") from error
    return Table(
        where=str(folder),
        columns=dataset.column_names,
        rows=dataset,
        class_names=class_names(dataset.features),
    )


def _shards(folder: Path, split: str) -> list[Path]:
    """Return the shards of a split in their order."""
    found = {
        path: told
        for path in sorted(folder.iterdir())
        if (told := _SHARD.fullmatch(table_name(path))) and told["split"] in STEMS[split]
    }
    counts = {int(told["count"]) for told in found.values()}
    if found and counts != {len(found)}:
        raise BdlitError(
            f"{folder} has {len(found)} of the {max(counts)} shards of '{split}': copy all of them"
        )
    return list(found)


def _table(folder: Path, files: list[Path]) -> Table:
    rows = [row for file in files for row in read_rows(file)]
    where = str(files[0]) if len(files) == 1 else f"{folder} ({len(files)} shards)"
    return Table(where=where, columns=list(rows[0]), rows=rows, class_names=_names_of(files[0]))


def _names_of(file: Path) -> dict[str, tuple[str, ...]]:
    """Return the class names that the `datasets` library has kept in a Parquet file."""
    if file.suffix != ".parquet":
        return {}
    from datasets import Features
    from pyarrow.parquet import read_schema

    return class_names(Features.from_arrow_schema(read_schema(file)))


def class_names(features: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the names of classes by the column that holds their indices."""
    from datasets import ClassLabel

    return {
        column: tuple(feature.names)
        for column, feature in features.items()
        if isinstance(feature, ClassLabel)
    }
