"""`bdlit defend`: one suspicious checkpoint in, a purified one out, measured if data is given."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bdlit.attacks.base import Attack
from bdlit.cli.writing import show_written, writing_with_progress
from bdlit.data.base import TextDataModule
from bdlit.defenses.base import Defense, by_name
from bdlit.errors import BdlitError
from bdlit.purification.compatibility import (
    DifferencesPolicy,
    Matching,
    fitted,
    open_base,
    open_others,
)
from bdlit.purification.held import ARCHIVE, Held
from bdlit.purification.hold import Supplies
from bdlit.purification.label_order import LabelPolicy
from bdlit.purification.measure import Measure
from bdlit.purification.record import Records, Subject
from bdlit.purification.saved import open_suspect
from bdlit.purification.series import Series, require_no_failure
from bdlit.recipe import Recipe
from bdlit.report.compare import compare
from bdlit.types import Rate
from bdlit.victims.generation import Decoding
from bdlit.weights.opening import short_name

if TYPE_CHECKING:
    from bdlit.evaluation.result import Result
    from bdlit.training.dynamics import TrainingSet

UNKNOWN = "unknown"
"""The `train_attack` of a model that somebody else has trained."""


def defend(
    suspect: str,
    defense: Defense | list[Defense],
    out: str,
    others: Sequence[str] = (),
    base: str | None = None,
    data: TextDataModule | None = None,
    attacks: Sequence[Attack] = (),
    benign: str | None = None,
    dynamics: str | None = None,
    recipe: Recipe | None = None,
    supplies: Supplies | None = None,
    max_length: int = 128,
    decoding: Decoding | None = None,
    precision: str = "32-true",
    labels: LabelPolicy = "error",
    differences: DifferencesPolicy = "error",
    device: Literal["cpu", "cuda"] = "cpu",
    dense: bool = False,
    rank: int | None = None,
    adapter_base: str | None = None,
    verify: bool = False,
) -> None:
    """Purify a saved model by one or several defenses, and measure what that did.

    Each purified model is written to OUT/<defense>, with its provenance and a model card. With
    data, the suspect and every purified model are measured, into OUT/results.jsonl and to W&B. Run
    the same command again after an interruption: what is finished is not done again.

    Args:
        suspect: The model to purify: directory, file, or hub id.
        defense: How to purify it; several as a list.
        out: Folder of the results.
        others: Models to merge it with.
        base: The checkpoint that all were fine-tuned from, where a method needs it.
        data: Data set to measure on; without it the models are only merged.
        attacks: Attacks to measure, beside those that the data brings.
        benign: A model without a backdoor, for the floor of ASR; no defense is given it.
        dynamics: File of the suspect's training dynamics, `dynamics.safetensors` in the folder of
            its run. The data's poisoned_train has to be the training file that they belong to.
        recipe: How the suspect was trained, for defenses that train as it was; from --base, on the
            data's poisoned_train.
        supplies: What else is given, such as plain texts (`--supplies.texts FILE`).
        max_length: Longest input in tokens.
        decoding: How the answers of language models are generated for the measurements.
        precision: Precision of the measurements, as Lightning's Trainer calls it.
        labels: Classes in another order are refused (`error`), brought into the suspect's order
            (`permute`), or merged as they stand (`ignore`).
        differences: Tensors that not all models have in one shape are refused (`error`), or stay
            the suspect's own (`keep_suspect`).
        device: Where to merge and to measure.
        dense: Write a dense model even if the suspect is an adapter. By default an adapter stays
            one where the method allows it exactly (WAG, Linear).
        rank: Where it does not, write the adapter of this rank that comes nearest, by SVD.
        adapter_base: The model that the suspect's and the others' adapters are merged into; by
            default the one that each names.
        verify: Load each result with transformers and run it once.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    defenses = by_name([defense] if isinstance(defense, Defense) else defense)
    folder = Path(out)
    runner = None
    if data is not None:
        accelerator = "gpu" if device == "cuda" else "cpu"
        runner = Measure(
            data,
            attacks,
            max_length=max_length,
            decoding=decoding,
            precision=precision,
            accelerator=accelerator,
        )
    elif attacks or benign:
        raise BdlitError("--attacks and --benign are about measurements: give --data as well")
    if dynamics and not any("suspect_train" in each.uses for each in defenses.values()):
        raise BdlitError(
            f"--dynamics guide a search such as GMS; {', '.join(defenses)} would not look at them"
        )
    matching = Matching(labels=labels, differences=differences, adapter_base=adapter_base)
    opened = open_suspect(suspect, runner=runner, folder=folder, adapter_base=adapter_base)
    beside = open_others(opened, others, matching)
    found = open_base(base, opened) if base else None
    held = Held(
        base=found,
        clean=data.clean_pool if data is not None else (),
        supplied=supplies.read() if supplies else {},
        training=_training_set(data, dynamics),
        start=(lambda: found.weights) if found is not None else None,
        recipe=recipe,
        archive=folder / ARCHIVE,
    )
    ready = {name: fitted(opened, each, beside, held, matching) for name, each in defenses.items()}
    series = Series(
        suspect=opened,
        subject=_subject(suspect, data),
        records=Records(folder / "results.jsonl"),
        folder=folder,
        tests=data,
        measured=runner.described() if runner else None,
        floor=lambda scores: _floor(runner, benign),
    )
    new = False
    for name, method in defenses.items():
        with writing_with_progress(
            name, device=device, dense=dense, rank=rank, verify=verify
        ) as writing:
            outcome = series.run(name, method, ready[name], writing)
        if outcome.error:
            print(f"{name}: failed: {outcome.error}")
        elif outcome.known:
            print(f"{name}: finished before")
        else:
            new = True
            show_written(folder / name, outcome.origin)
    if data is not None:
        if new:
            _log(series.results, folder)
        compare([out], attacks="all")
    require_no_failure(series.failures)


def _subject(suspect: str, data: TextDataModule | None) -> Subject:
    return Subject(
        data=data.name if data else "",
        victim=short_name(suspect),
        train_attack=UNKNOWN,
        benign=None,
        seed=data.seed if data else 0,
        config={"poisoning": data.poisoning} if data else {},
    )


def _floor(runner: Measure | None, benign: str | None) -> Mapping[str, Rate]:
    return runner(Path(benign)).asr if runner is not None and benign else {}


def _log(results: list[Result], folder: Path) -> None:
    """Log all that is known of the suspect to W&B, as one run."""
    import wandb

    from bdlit.evaluation.tracking import go_offline_if_needed, log_results, wandb_logger

    go_offline_if_needed()
    name, data = results[0].victim, results[0].data
    logger = wandb_logger(name, folder, group=data, job_type="defend", tags=[name])
    log_results([logger], results)
    wandb.finish()


def _training_set(data: TextDataModule | None, dynamics: str | None) -> TrainingSet | None:
    """Return the suspect's training set, where the data brings one that somebody may have poisoned.

    A clean training split is no suspect's.
    """
    if data is None or (data.poisoned_train is None and data.attack is None):
        if dynamics:
            raise BdlitError(
                "--dynamics belong to a training set: give the suspect's as --data.poisoned_train"
            )
        return None
    from bdlit.training.dynamics import TrainingSet, load_certainty

    certainty = load_certainty(Path(dynamics), data.train_rows) if dynamics else None
    return TrainingSet(data.train_rows, certainty)
