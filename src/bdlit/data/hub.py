"""Splits of a data set on the Hugging Face hub, through the `datasets` library."""

from __future__ import annotations

import logging
import re
from functools import cache
from pathlib import Path
from typing import Any

from bdlit.data.saved_sets import class_names
from bdlit.data.tables import Table
from bdlit.errors import BdlitError

_log = logging.getLogger(__name__)
_COMMIT = re.compile("[0-9a-f]{40}")  # the library names folders in its cache after commits


def read_hub_split(
    hub_id: str, split: str, *, subset: str | None = None, revision: str | None = None
) -> Table:
    """Return a split, from the hub or from the local cache of an earlier download.

    Args:
        hub_id: Repository, e.g. `stanfordnlp/imdb`.
        split: Name of the split; a slice such as `train[:1000]` works too.
        subset: Configuration of the repository.
        revision: Commit, tag or branch. Anything but a commit may change under you; the log
            says which commit it was this time.

    Raises:
        BdlitError: The set, subset or split does not exist, or the hub cannot be reached.
    """
    where = f"{hub_id}{f'/{subset}' if subset else ''} on the hub, split '{split}'"
    try:
        dataset = _builder(hub_id, subset, revision).as_dataset(split=split)
    # The library raises errors of many kinds for what is one kind of event to the user.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise BdlitError(
            f"cannot load {where}: {reason.rstrip('.')}; check id, subset, split and network, or "
            "set `source` to a folder of local files"
        ) from error
    return Table(
        where=where,
        columns=dataset.column_names,
        rows=dataset,
        class_names=class_names(dataset.features),
    )


@cache
def _builder(hub_id: str, subset: str | None, revision: str | None) -> Any:
    """Return what makes the splits of a data set, which is on the disk then.

    Remembered: all splits of a run come from one commit, and the hub is asked for it once (out
    of its reach, each question means half a minute of retries).
    """
    from datasets import load_dataset_builder

    builder = load_dataset_builder(hub_id, subset, revision=revision)
    builder.download_and_prepare()
    commit = next(filter(_COMMIT.fullmatch, Path(builder.cache_dir).parts), None)
    # Out of reach of the hub, the library takes the newest version in its cache.
    if revision and _COMMIT.fullmatch(revision) and commit not in (None, revision):
        raise FileNotFoundError(f"revision {revision} is not in the cache, only {commit}")
    _log.info("data set %s: commit %s", hub_id, commit)
    return builder
