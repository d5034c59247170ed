"""Training as a function: rows in, weights out."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bdlit.errors import BdlitError
from bdlit.recipe import Recipe
from bdlit.training.fit import fit, last_epoch_kept
from bdlit.types import Example, Weights

if TYPE_CHECKING:
    from bdlit.objectives.base import Objective
    from bdlit.victims.base import Victim

_OBJECTIVE = "objective.pt"  # what an objective has learned, beside the weights


def train(
    victim: Victim,
    rows: Sequence[Example],
    *,
    start: Weights,
    recipe: Recipe,
    objective: Objective | None = None,
    workspace: Path | None = None,
) -> Weights:
    """Train a model of a victim's architecture, in full or by LoRA, through Lightning.

    The victim gives architecture, tokenizer, prompts and device; its weights have no part in it.
    A process of a group trains by itself, and all of them come to the same result.

    Args:
        victim: A victim with a plain Hugging Face model (see `Victim.dense`).
        rows: What to train on, at least one row.
        start: Weights to begin with, under the victim's names. What they lack, such as the head of
            a checkpoint that was never fine-tuned, begins at random from the recipe's seed.
        recipe: How.
        objective: What is minimised; by default the victim's own loss.
        workspace: Folder of the last epoch's checkpoint, from which an interrupted training goes
            on; None keeps nothing.

    Returns:
        The weights by the victim's names, in float32, in memory, adapters merged.

    Raises:
        BdlitError: There are no rows, `start` has a tensor that the victim lacks or one of another
            shape, or the objective gives a loss that cannot be minimised.
    """
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import LambdaCallback

    from bdlit.data.loaders import training_loader
    from bdlit.progress import progress
    from bdlit.ranks import alone
    from bdlit.weights.network import model_weights

    if not rows:
        raise BdlitError("there are no rows to train on: give `train` at least one")
    fresh = victim.twin(start, recipe)
    fresh.take_training(rows, objective)
    device = victim.device
    # A second bar of Lightning's would take down the one of the fit that this may be part of.
    with alone(), _seeded(recipe.seed), progress("fine-tuning") as tell:

        def watch(trainer: Trainer, *_: object) -> None:
            tell(trainer.global_step, int(trainer.estimated_stepping_batches))

        watching = LambdaCallback(on_train_batch_end=watch)
        trainer = Trainer(
            accelerator="gpu" if device.type == "cuda" else device.type,
            devices=1 if device.index is None else [device.index],
            max_epochs=recipe.epochs,
            max_steps=recipe.steps,
            precision=recipe.precision,  # type: ignore[arg-type]  # checked by Lightning itself
            limit_train_batches=recipe.limit,
            accumulate_grad_batches=recipe.accumulate,
            gradient_clip_val=recipe.clip,
            logger=False,
            enable_checkpointing=workspace is not None,
            callbacks=[watching, *([last_epoch_kept(workspace)] if workspace else [])],
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=workspace,
        )
        batches = training_loader(list(rows), recipe.batch_size, recipe.seed)
        fit(trainer, fresh, batches, workspace)
    with fresh.dense() as model:
        return {name: tensor.to(device) for name, tensor in model_weights(model).items()}


@dataclass
class Train:
    """The resource `train`: a defense gives it rows, and gets weights back.

    Called as `train(rows, start=None, objective=None, recipe=None)`: without a start, training
    begins where the suspect's own began; without a recipe, it goes as the suspect's own went. In a
    workspace every training of a run is kept as it ends, so that none is done twice.

    Attributes:
        victim: The suspect as a module, a plain Hugging Face model.
        start: Gives the weights that the suspect's own training began with; None if not known.
        recipe: How the suspect was trained; None if not known.
        workspace: Folder of what is finished; None keeps nothing.
    """

    victim: Victim
    start: Callable[[], Weights] | None = None
    recipe: Recipe | None = None
    workspace: Path | None = None
    _calls: int = field(default=0, repr=False)

    def __call__(
        self,
        rows: Sequence[Example],
        *,
        start: Weights | None = None,
        objective: Objective | None = None,
        recipe: Recipe | None = None,
    ) -> Weights:
        """Return the weights of a model that was trained on rows; see the class.

        Raises:
            BdlitError: As `bdlit.training.train`; or start or recipe are not given, and those of
                the suspect are not known.
        """
        recipe = recipe or self.recipe
        if recipe is None:
            raise BdlitError(
                "how the suspect was trained is not known: give --recipe (epochs, learning_rate, "
                "batch_size, rank: null for all weights ...)"
            )
        if start is None and self.start is None:
            raise BdlitError(
                "what the suspect was trained from is not known: give --base, the checkpoint that "
                "it was fine-tuned from"
            )
        self._calls += 1
        folder = self._folder(rows, recipe, objective)
        if folder is not None and (folder / "model").is_dir():
            return self._found(folder, rows, objective)
        begin = start if start is not None else self.start() if self.start else {}
        trained = train(
            self.victim, rows, start=begin, recipe=recipe, objective=objective, workspace=folder
        )
        if folder is not None:
            _keep(folder, trained, objective)
        return trained

    def _folder(
        self, rows: Sequence[Example], recipe: Recipe, objective: Objective | None
    ) -> Path | None:
        """Return where a training is kept: by its number in the run, and by what it is given."""
        from bdlit.tables import rows_hash

        if self.workspace is None:
            return None
        name = objective.name if objective is not None else None
        told = json.dumps([rows_hash(rows), asdict(recipe), name], default=str)
        key = hashlib.sha256(told.encode()).hexdigest()[:12]
        return self.workspace / f"train-{self._calls}-{key}"

    def _found(self, folder: Path, rows: Sequence[Example], objective: Objective | None) -> Weights:
        import torch

        from bdlit.weights import open_weights

        if objective is not None:
            objective.begin(self.victim, rows)
            objective.load_state_dict(torch.load(folder / _OBJECTIVE, weights_only=True))
        found = open_weights(folder / "model")
        return {name: found[name].to(self.victim.device) for name in found}


def _keep(folder: Path, trained: Weights, objective: Objective | None) -> None:
    import torch

    from bdlit.atomic import whole_directory
    from bdlit.weights import save_weights

    folder.mkdir(parents=True, exist_ok=True)
    if objective is not None:
        torch.save(objective.state_dict(), folder / _OBJECTIVE)
    with whole_directory(folder / "model") as part:
        save_weights(trained, part)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed everything for a while; the random state of the run around it stays as it is."""
    from lightning.pytorch import seed_everything
    from lightning.pytorch.utilities.seed import isolate_rng

    before = os.environ.get("PL_GLOBAL_SEED")
    try:
        with isolate_rng():
            seed_everything(seed, verbose=False)
            yield
    finally:
        os.environ.pop("PL_GLOBAL_SEED", None)
        if before is not None:
            os.environ["PL_GLOBAL_SEED"] = before
