"""Conflict-model merging: the base learns the clean task anew, and takes the backdoor's place."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdlit.defenses.base import Defended, Defense, Resources, run_defense
from bdlit.defenses.head import HEAD_NAMES, base_for
from bdlit.defenses.interpolation import Linear
from bdlit.errors import BdlitError
from bdlit.merging.settings import require_share
from bdlit.recipe import Recipe
from bdlit.types import Example, Precision, Weights

if TYPE_CHECKING:
    from bdlit.training.train import Train


@dataclass(frozen=True, kw_only=True)
class ConflictModel(Defense):
    """Merge the suspect with a conflict model, trained from the base on a few clean rows.

    The conflict model learns the task from the pre-trained base by LoRA, without the backdoor. It
    knows nothing of the suspect, so one conflict model serves every suspect of the same base and
    task: it is kept in the run's archive, and found again by what it was made of.

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
        precision: Precision of the training, as Lightning's Trainer calls it.
        seed: Seed of the training.

    Reference: Chen et al. 2024, "Neutralizing Backdoors through Information Conflicts for Large
        Language Models", arXiv:2411.18280, section 4 (internal conflicts). Clean rows are at most a
        tenth of the task's there: `clean_pool_size` of the data is their number here.
    Deviation: The paper states neither the share of the conflict model in the merge nor LoRA's
        settings. The share is one half unless `merge` or `shares` say otherwise; it is never
        chosen by ASR, which a defender cannot measure. The rest are the settings of the paper's
        fine-tuning baseline. The head of a classifier, which the base
        lacks, begins at random from the seed.
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
    precision: Precision = "32-true"
    seed: int = 0

    def __post_init__(self) -> None:
        foreign = set(self.merge.needs) - {"others", "base"}
        if foreign or "others" not in self.merge.needs:
            raise BdlitError(
                f"{self.merge.name} cannot merge a suspect with one conflict model: "
                "take Linear, SLERP, TIES, DARE or Passthrough as `merge`"
            )
        if self.shares and not hasattr(self.merge, "t"):
            raise BdlitError(
                f"{self.merge.name} has no share to choose: leave `shares` out, or take Linear or "
                "SLERP as `merge`"
            )
        for share in self.shares:
            require_share("shares", share)
        for name in ("clean_rows", "epochs", "batch_size", "rank", "alpha", "learning_rate"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise BdlitError(
                    f"{name} {getattr(self, name)} of {self.name} is out of range: "
                    "give a number above 0"
                )

    @property
    def name(self) -> str:
        """Name in folders, logs and results: `Conflict-Linear`."""
        return f"Conflict-{self.merge.name}"

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

        start = base_for(base, suspect, "keep_suspect", HEAD_NAMES)
        clean = self._drawn(clean)
        rows, held = hold_back(clean, self.seed) if self.shares else (list(clean), [])
        conflict, about = self._conflict_model(start, rows, train, archive)
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

    def check(
        self,
        suspect: Weights,
        *,
        others: Sequence[Weights],
        base: Weights | None,
        model_type: str | None,
    ) -> None:
        """Refuse a base that a conflict model of the suspect's kind cannot begin with."""
        if base is not None:
            base_for(base, suspect, "keep_suspect", HEAD_NAMES)

    @property
    def recipe(self) -> Recipe:
        """How the conflict model is trained."""
        return Recipe(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            rank=self.rank,
            alpha=self.alpha,
            precision=self.precision,
            seed=self.seed,
        )

    def _drawn(self, clean: Sequence[Example]) -> Sequence[Example]:
        """Return as many clean rows as are to be used, in their order."""
        if self.clean_rows is None:
            return clean
        if self.clean_rows > len(clean):
            raise BdlitError(
                f"clean_rows {self.clean_rows} of {self.name} is out of range: the data keeps "
                f"{len(clean)} trusted rows; raise its clean_pool_size"
            )
        order = random.Random(f"clean rows {self.seed}").sample(range(len(clean)), len(clean))
        return [clean[i] for i in sorted(order[: self.clean_rows])]

    def _conflict_model(
        self,
        start: Weights,
        clean: Sequence[Example],
        train: Train,
        archive: Path | None,
    ) -> tuple[Weights, dict[str, Any]]:
        from bdlit.defenses.archive import kept
        from bdlit.tables import rows_hash
        from bdlit.weights import fingerprint

        made_of = {
            "base": fingerprint(start),
            "rows": rows_hash(clean),
            "recipe": asdict(self.recipe),
        }
        conflict, found = kept(
            archive, "conflict", made_of, lambda: train(clean, start=start, recipe=self.recipe)
        )
        return conflict, {"clean": len(clean), "made_of": made_of, "found": found}
