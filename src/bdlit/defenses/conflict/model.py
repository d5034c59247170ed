"""Conflict-model merging: the base learns the clean task anew, and takes the backdoor's place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdlit.defenses.base import Defended, Defense, Resources, run_defense
from bdlit.defenses.conflict.training import (
    FromBase,
    HeadFrom,
    conflict_model,
    drawn_rows,
    require_rows,
)
from bdlit.defenses.head import HEAD_NAMES, HeadFate
from bdlit.defenses.interpolation import Linear
from bdlit.errors import BdlitError
from bdlit.merging.settings import require_choice, require_share
from bdlit.recipe import Recipe, Schedule
from bdlit.types import Example, Precision, Weights

if TYPE_CHECKING:
    from bdlit.training.train import Train


@dataclass(frozen=True, kw_only=True)
class ConflictModel(FromBase):
    """Merge the suspect with a conflict model, trained from the base on a few clean rows.

    The conflict model learns the task from the pre-trained base by LoRA, without the backdoor. It
    knows nothing of the suspect but for a head that it may begin with, so one conflict model serves
    every suspect of the same base, head and task: it is kept in the run's archive, and found again
    by what it was made of.

    Attributes:
        merge: How suspect and conflict model are merged: Linear, SLERP, TIES, DARE, Passthrough or
            another defense that needs no more than other models and a base.
        shares: Shares `t` of the conflict model to choose from, in [0, 1], for merges that have
            one. A fifth of the clean rows is then held back from training, and the largest share
            is taken whose accuracy on them is within `slack` of the best. None keeps that of
            `merge`.
        slack: How far below the best accuracy a larger share may be, in percentage points.
        clean_rows: How many of the clean rows are used, drawn by the seed; None uses all. More
            rows are drawn by adding to fewer, so that several numbers can be compared.
        epochs: Passes over the clean rows.
        learning_rate: Step size of Adam.
        batch_size: Rows per step.
        rank: Rank of the LoRA adapters.
        alpha: Their updates are scaled by alpha / rank.
        schedule: What the learning rate does: `constant`, `linear` or `cosine`.
        precision: Precision of the training, as Lightning's Trainer calls it.
        seed: Seed of the training.
        head_from: What its head begins with where the base has none, as pre-trained checkpoints
            have none for classes: that of the suspect's `family`, which is what the suspect's own
            training began with, or the draw of its `init_seed`; the `suspect`'s, which is also
            taken where the family's is not known; or `drawn` anew from the seed. A head of another
            draw is foreign to the suspect's, and their merge is worse for it.

    Reference: Chen et al. 2024, "Neutralizing Backdoors through Information Conflicts for Large
        Language Models", arXiv:2411.18280, section 4 (internal conflicts). Clean rows are at most a
        tenth of the task's there: `clean_pool_size` of the data is their number here.
    Deviation: The paper states neither the share of the conflict model in the merge nor LoRA's
        settings. The share is one half unless `merge` or `shares` say otherwise; it is never
        chosen by ASR, which a defender cannot measure. The rest are the settings of the paper's
        fine-tuning baseline, at a constant rate, as the paper's successor has it. What the head
        of a classifier begins with, which the base lacks, it leaves open as well (`head_from`).
        Settings of the paper's successor are those of `Lethe`.
    """

    merge: Defense = field(default_factory=Linear)
    shares: Sequence[float] = ()
    slack: float = 2.0
    clean_rows: int | None = None
    epochs: int = 3
    learning_rate: float = 2e-4
    batch_size: int = 16
    rank: int = 8
    alpha: int = 16
    schedule: Schedule = "constant"
    precision: Precision = "32-true"
    seed: int = 0
    head_from: HeadFrom = "family"

    def __post_init__(self) -> None:
        foreign = set(self.merge.needs) - {"others", "base"}
        if foreign or "others" not in self.merge.needs:
            raise BdlitError(
                f"{self.merge.name} cannot merge a suspect with one conflict model: "
                "take Linear, SLERP, TIES, DARE or Passthrough as `merge`"
            )
        if self.shares and not isinstance(getattr(self.merge, "t", None), float | int):
            raise BdlitError(
                f"{self.merge.name} has no one share to choose: leave `shares` out, or take Linear "
                "or SLERP with a number as t as `merge`"
            )
        for share in self.shares:
            require_share("shares", share)
        require_choice("head_from", self.head_from, HeadFrom)
        require_choice("schedule", self.schedule, Schedule)
        require_rows(self.clean_rows, self.name)
        for name in ("epochs", "batch_size", "rank", "alpha", "learning_rate"):
            if getattr(self, name) <= 0:
                raise BdlitError(
                    f"{name} {getattr(self, name)} of {self.name} is out of range: "
                    "give a number above 0"
                )

    @property
    def name(self) -> str:
        """Name in folders, logs and results: `Conflict-Linear`."""
        return f"Conflict-{self.merge.name}"

    @property
    def head_names(self) -> tuple[str, ...]:
        """As the merge has them."""
        return tuple(getattr(self.merge, "head_names", HEAD_NAMES))

    @property
    def head_becomes(self) -> HeadFate | None:
        """As the merge says."""
        return self.merge.head_becomes

    def apply(
        self,
        suspect: Weights,
        *,
        base: Weights,
        clean: Sequence[Example],
        train: Train,
        victim: Any = None,
        archive: Path | None = None,
    ) -> Defended:
        """Return the suspect merged with the conflict model; `notes["conflict"]` says of which.

        Raises:
            BdlitError: The base does not fit the suspect, the merge refuses the two models, there
                are fewer clean rows than `clean_rows`, or too few to hold some back.
        """
        from bdlit.defenses.conflict.merge_share import accuracy, hold_back, largest_harmless

        clean = drawn_rows(clean, self.clean_rows, self.seed, self.name)
        rows, held = hold_back(clean, self.seed) if self.shares else (list(clean), [])
        conflict, about = conflict_model(
            suspect,
            base,
            rows,
            recipe=self.recipe,
            head_from=self.head_from,
            train=train,
            archive=archive,
        )
        given = Resources(others=[conflict], base=base)
        merge: Any = self.merge
        if self.shares:
            share, found = largest_harmless(
                self.shares,
                lambda t: accuracy(
                    victim, run_defense(replace(merge, t=t), suspect, given).weights, held
                ),
                self.slack,
            )
            merge = replace(merge, t=share)
            held_back = {t: {"hits": rate.hits, "rows": rate.n} for t, rate in found.items()}
            about |= {"share": share, "held_back": held_back}
        merged = run_defense(merge, suspect, given)
        return replace(merged, notes={**merged.notes, "conflict": about})

    @property
    def recipe(self) -> Recipe:
        """How the conflict model is trained."""
        return Recipe(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            rank=self.rank,
            alpha=self.alpha,
            schedule=self.schedule,
            precision=self.precision,
            seed=self.seed,
        )
