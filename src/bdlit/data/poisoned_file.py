"""Poisoned data sets as files: rows as JSON Lines, and a manifest of how they were made."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from bdlit import __version__
from bdlit.atomic import whole_file
from bdlit.attacks import Attack, Poisoned, target_index
from bdlit.errors import BdlitError
from bdlit.tables import dump_jsonl, read_rows
from bdlit.types import Example, Target, Turn


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """How a poisoned file was made: enough to make it again.

    Attributes:
        attack: Class and settings, in the form of a config: `class_path` and `init_args`.
        target: Class index of the target; None where the attacks of a mixture differ, and where
            the target is a response.
        target_name: Name of that class, or that response.
        labels: Names of all classes; none of instruction data.
        rate: Share of all rows that the attack was to poison; None for a mixture.
        seed: Seed that the rows follow from.
        split: `train` (all rows, some poisoned) or `test` (triggered non-target rows alone).
        source: Where the clean rows came from: a file, or a data set by name.
        source_sha256: Hash of that file, where it is one.
        unchanged: Number of chosen rows that the trigger could not change.
        rows: Number of rows in the file.
        poisoned: Number of poisoned rows among them.
        sha256: Hash of the file.
        bdlit: Version of this package that wrote the file.
    """

    attack: Mapping[str, Any]
    target: int | None
    target_name: str | None
    labels: Sequence[str]
    rate: float | None
    seed: int
    split: str = "train"
    source: str = ""
    source_sha256: str | None = None
    unchanged: int = 0
    rows: int = 0
    poisoned: int = 0
    sha256: str = ""
    bdlit: str = field(default=__version__)


def manifest_of(
    attack: Attack,
    poisoned: Poisoned,
    *,
    labels: Sequence[str],
    seed: int,
    source: str | Path,
    split: str = "train",
) -> Manifest:
    """Return the manifest of rows that an attack has made; see `Manifest` for its parts.

    Raises:
        BdlitError: The attack's target is not a class of `labels`.

    >>> from bdlit.attacks import BadNet
    >>> attack = BadNet(target="bad", rate=0.5)
    >>> rows = [Example("fine film", 1), Example("dull film", 0)]
    >>> made = attack.poison_train(rows, labels=["bad", "good"], seed=7)
    >>> manifest = manifest_of(attack, made, labels=["bad", "good"], seed=7, source="two films")
    >>> manifest.attack["class_path"], manifest.target, manifest.poisoned
    ('bdlit.attacks.words.BadNet', 0, 1)
    """
    is_class = attack.target is not None and bool(labels)
    target = target_index(attack.target, labels) if is_class else None
    return Manifest(
        attack=_settings(attack),
        target=target,
        target_name=_name_of(attack.target) if target is None else labels[target],
        labels=list(labels),
        rate=getattr(attack, "rate", None),
        seed=seed,
        split=split,
        source=str(source),
        source_sha256=_sha256(Path(source)) if Path(source).is_file() else None,
        unchanged=poisoned.unchanged,
        rows=len(poisoned.rows),
        poisoned=poisoned.poisoned,
    )


def _name_of(target: Target | None) -> str | None:
    return None if target is None else str(target)


def manifest_path(path: str | Path) -> Path:
    """Return where the manifest of a poisoned file stands.

    >>> manifest_path("out/train.jsonl.gz").name
    'train.manifest.json'
    """
    path = Path(path)
    stem = path.name.removesuffix(".gz").removesuffix(".jsonl")
    return path.with_name(f"{stem}.manifest.json")


def save_poisoned(path: str | Path, examples: Sequence[Example], manifest: Manifest) -> Manifest:
    """Write rows and manifest; both appear, or neither does, and no file is overwritten.

    Returns:
        The manifest as written: with the counts and the hash of the file.

    Raises:
        BdlitError: There are no rows, one of the two files exists or cannot be written, or
            `path` does not end in `.jsonl` or `.jsonl.gz`.
    """
    path, beside = Path(path), manifest_path(path)
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise BdlitError(f"cannot write {path}: name a file that ends in .jsonl or .jsonl.gz")
    if not examples:
        raise BdlitError(f"no rows to write to {path}: the attack left none")
    for file in (path, beside):
        if file.exists():
            raise BdlitError(f"{file} exists already: name another file, or remove it first")
    try:
        with ExitStack() as stack:
            # The rows are renamed into place last, so that their presence means both are there.
            rows_part = stack.enter_context(whole_file(path))
            manifest_part = stack.enter_context(whole_file(beside))
            dump_jsonl(rows_part, map(_row, examples))
            manifest = replace(
                manifest,
                rows=len(examples),
                poisoned=sum(example.poisoned for example in examples),
                sha256=_sha256(rows_part),
            )
            with open(manifest_part, "w", encoding="utf-8") as out:
                # A user's own trigger may hold anything; `str` keeps at least its name.
                json.dump(asdict(manifest), out, indent=2, default=str)
                out.write("\n")
                out.flush()
                os.fsync(out.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        beside.unlink(missing_ok=True)
        raise
    return manifest


def read_poisoned(path: str | Path) -> tuple[list[Example], Manifest]:
    """Read a file that `save_poisoned` wrote, and see that nobody changed it.

    Raises:
        BdlitError: One of the two files is missing or damaged, or the rows are not those that
            the manifest was written for.
    """
    path, beside = Path(path), manifest_path(path)
    manifest = _read_manifest(beside)
    try:
        found = _sha256(path)
    except OSError as error:
        raise BdlitError(f"cannot read {path}: {error.strerror}; check the path") from error
    if found != manifest.sha256:
        raise BdlitError(
            f"{path} was changed after it was poisoned (its hash is not that in {beside.name}): "
            "poison the data again"
        )
    return [_example(row) for row in read_rows(path)], manifest


def _read_manifest(path: Path) -> Manifest:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        # Fields of later versions are left out, so that old code reads new files.
        names = {f.name for f in fields(Manifest)}
        return Manifest(**{name: value for name, value in record.items() if name in names})
    except OSError as error:
        raise BdlitError(
            f"cannot read the manifest {path}: {error.strerror}; "
            "a poisoned file and its manifest belong side by side"
        ) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise BdlitError(f"{path} is not a manifest of a poisoned file: {error}") from error


def _row(example: Example) -> dict[str, Any]:
    row: dict[str, Any] = {"text": example.text}
    if example.text_pair is not None:
        row["text_pair"] = example.text_pair
    row["label"] = example.label
    if example.orig_label is not None:
        row["orig_label"] = example.orig_label
    row["poisoned"] = example.poisoned
    if example.response is not None:
        row["response"] = example.response
    if example.orig_response is not None:
        row["orig_response"] = example.orig_response
    if example.history:
        row["history"] = [asdict(turn) for turn in example.history]
    return row


def _example(row: Mapping[str, Any]) -> Example:
    return Example(
        row["text"],
        row["label"],
        row.get("text_pair"),
        poisoned=row["poisoned"],
        orig_label=row.get("orig_label"),
        response=row.get("response"),
        orig_response=row.get("orig_response"),
        history=tuple(Turn(**turn) for turn in row.get("history", ())),
    )


def _settings(part: Any) -> Any:
    """Return an attack or trigger, whatever it is made of, ready for JSON and for a config."""
    if is_dataclass(part) and not isinstance(part, type):
        kind = type(part)
        return {
            "class_path": f"{kind.__module__}.{kind.__qualname__}",
            "init_args": {f.name: _settings(getattr(part, f.name)) for f in fields(part)},
        }
    if isinstance(part, list | tuple):
        return [_settings(item) for item in part]
    return str(part) if isinstance(part, Path) else part


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
