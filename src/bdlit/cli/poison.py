"""`bdlit poison`: a poisoned data set as a file, with a manifest that says how it was made."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from bdlit.attacks.base import Attack
from bdlit.data.base import TextDataModule
from bdlit.data.poisoned_file import manifest_of, save_poisoned
from bdlit.errors import BdlitError


def poison(
    data: TextDataModule,
    attack: Attack,
    out: str,
    split: Literal["train", "validation", "test"] = "train",
    learned: str | None = None,
) -> None:
    """Poison a split and write it as JSONL, with a manifest beside it.

    The rows are those that training with the same data, attack and seed would see. Load them
    again with `poisoned_train`, or a test split with `poisoned_tests`.

    Args:
        data: Where the rows come from; its seed is the seed of the poisoning.
        attack: What is done to them.
        out: File to write, `.jsonl` or `.jsonl.gz`; it must not exist.
        split: `train` keeps all rows and poisons a share; the others keep triggered non-target
            rows alone, as ASR is measured on.
        learned: Folder of what an attack has learned with a victim: that of its model.
    """
    data.prepare_data()
    rows = data.load(split)
    if not rows:
        raise BdlitError(f"data '{data.name}' has no {split} rows: name another split or source")
    attack = attack.with_default_target(data.target)
    if learned is not None:
        attack = attack.learned(Path(learned))
    if split != "train" and not attack.ready:
        raise BdlitError(
            f"attack '{attack.name}' learns its trigger with a victim: give --learned, the folder "
            "of that model"
        )
    make = attack.poison_train if split == "train" else attack.poison_test
    poisoned = make(rows, labels=data.labels, seed=data.seed)
    manifest = manifest_of(
        attack,
        poisoned,
        labels=data.labels,
        seed=data.seed,
        source=data.name,
        split=split,
    )
    save_poisoned(Path(out), poisoned.rows, manifest)
    print(
        f"wrote {out}: {len(poisoned.rows)} rows, {poisoned.poisoned} poisoned by "
        f"{attack.name}, {poisoned.unchanged} that the trigger could not change"
    )
