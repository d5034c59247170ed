"""`bdlit study`: many fits and defenses from one file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning.pytorch import Trainer

from bdlit.data.base import TextDataModule
from bdlit.evaluation.tracking import go_offline_if_needed
from bdlit.purification.compatibility import Matching
from bdlit.purification.hold import Supplies
from bdlit.purification.series import require_no_failure
from bdlit.report.compare import compare
from bdlit.study.execute import Study, describe
from bdlit.study.plan import Model, Plan, Start, Treatment, shard_of
from bdlit.victims.base import Victim


def study(
    name: str,
    data: Callable[[], TextDataModule],
    victim: Callable[[], Victim],
    trainer: Callable[[], Trainer],
    models: dict[str, Model],
    defenses: dict[str, Treatment] | None = None,
    start: Start | None = None,
    suspects: Sequence[str] | None = None,
    floor: str | None = None,
    seeds: Sequence[int] = (0,),
    out: str | None = None,
    shard: str | None = None,
    models_from: str | None = None,
    supplies: Supplies | None = None,
    matching: Matching | None = None,
    recipe: str | None = None,
    dry_run: bool = False,
) -> None:
    """Train models, defend suspects, and print the table; what is finished is not done again.

    Run the same command again after an interruption, and it goes on where it stopped.

    Args:
        name: Name of the study; its W&B group.
        data: Data set of all models; attack and seed are set per model.
        victim: The model to train; on the common start, if there is one.
        trainer: How to train it.
        models: Name to model: its attack, or none for a benign one.
        defenses: Name to defense, with the models it is given beside the suspect.
        start: A checkpoint to train first, from which all models of a seed are fine-tuned.
        suspects: Models to defend; by default all that were attacked.
        floor: Name of the benign model whose ASR is the floor.
        seeds: Seeds of training and poisoning; everything is done once per seed. Defenses that
            draw have a seed of their own among their settings, the same for all of these.
        out: Folder of the study; by default studies/NAME.
        models_from: Folder of another study whose finished models are taken, by name and seed,
            rather than trained again: to measure the same models in another way, say, or to try
            other defenses. That they were trained as this file says is for you to see.
        supplies: What else defenses are given, such as plain texts.
        matching: What is done about models whose classes or tensors do not match a suspect's.
        recipe: Name of the recipe that all models are trained by, unless they name their own (see
            `bdlit list recipes`). It lies beneath what victim, data and trainer state.
        dry_run: Print the cells in their order, with what is finished, and do nothing.
        shard: `i/n` does part i (from 0) of n, for cluster arrays on one file system.
    """
    plan = Plan(
        name=name,
        data=data,
        victim=victim,
        trainer=trainer,
        models=models,
        defenses=defenses or {},
        start=start,
        suspects=suspects,
        floor=floor,
        seeds=seeds,
        supplies=supplies or Supplies(),
        matching=matching or Matching(),
        recipe=recipe,
    )
    part = shard_of(shard)
    folder = Path(out or f"studies/{name}")
    work = Study(plan, folder, part, Path(models_from) if models_from else None)
    if dry_run:
        print(describe(work))
        return
    # What Lightning says of every fit would bury the progress of the study.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    go_offline_if_needed()
    failures = work.run()
    if part[1] == 1:
        compare([str(folder)])
    require_no_failure(failures)
